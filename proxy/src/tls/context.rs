//! What both kinds of contexts share: building from inputs, rebuilding when an input changes, keeping the last good.
//!
//! Owns the swap. Knows nothing of what is built. Invariant: readers see a complete configuration or none, and a bad
//! input never replaces a good configuration.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwapOption;

use super::{
    TlsError,
    expiry::{self, Expiration},
    material::{self, Inputs, Lack},
    secrets::{Dependent, Secrets},
    shown::{self, InUse},
};
use crate::ir::secret::CommonTls;

/// How a kind of context is made from its inputs.
pub(super) trait Build: Send + Sync + 'static {
    type Built: Send + Sync;

    fn common(&self) -> &CommonTls;
    fn build(&self, inputs: &Inputs) -> Result<Self::Built, TlsError>;
}

pub(super) struct Core<B: Build> {
    builder: B,
    secrets: Arc<Secrets>,
    built: ArcSwapOption<B::Built>,
    generation: AtomicU64,
    failures: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of the configuration in force.
    inputs: Option<Inputs>,
    expirations: Vec<Expiration>,
    lack: Option<Lack>,
}

impl<B: Build> Core<B> {
    /// Builds what can be built now. A configuration that could never work is an error; secrets may come later.
    pub(super) fn new(builder: B, secrets: Arc<Secrets>) -> Result<Arc<Self>, TlsError> {
        let core = Arc::new(Self {
            builder,
            secrets,
            built: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            state: Mutex::default(),
        });
        // Registered before the first look, so that no change falls between the two.
        let weak = Arc::downgrade(&core);
        core.secrets.register(weak);
        core.refresh();
        match core.lack() {
            Some(Lack::Bad(reason)) if material::is_static(core.builder.common()) => Err(TlsError(reason)),
            _ => Ok(core),
        }
    }

    pub(super) fn builder(&self) -> &B {
        &self.builder
    }

    pub(super) fn get(&self) -> Option<Arc<B::Built>> {
        self.built.load_full()
    }

    pub(super) fn ready(&self) -> bool {
        self.built.load().is_some()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// What keeps the context from using its newest inputs.
    pub(super) fn problem(&self) -> Option<String> {
        self.lack().map(|lack| match lack {
            Lack::Missing(reason) | Lack::Bad(reason) => reason,
        })
    }

    fn lack(&self) -> Option<Lack> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).lack.clone()
    }
}

impl<B: Build> Dependent for Core<B> {
    fn uses(&self, secret: &str) -> bool {
        material::uses(self.builder.common(), secret)
    }

    fn refresh(&self) {
        // Held over the build: two refreshes must not overtake each other.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = material::resolve(self.builder.common(), &self.secrets).and_then(|inputs| {
            if state.inputs.as_ref() == Some(&inputs) {
                return Ok(None);
            }
            let built = self.builder.build(&inputs)?;
            Ok(Some((inputs, built)))
        });
        let lack = match result {
            Ok(None) => None,
            Ok(Some((inputs, built))) => {
                self.built.store(Some(Arc::new(built)));
                self.generation.fetch_add(1, Ordering::AcqRel);
                state.expirations = expiry::of(self.builder.common(), &inputs);
                state.inputs = Some(inputs);
                None
            }
            Err(lack) => Some(lack),
        };
        if let Some(Lack::Bad(reason)) = &lack
            && state.lack != lack
        {
            self.failures.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%reason, keeping = state.inputs.is_some(), "a TLS context cannot use its new inputs");
        }
        state.lack = lack;
    }

    fn watched(&self) -> Vec<PathBuf> {
        material::watched(self.builder.common(), &self.secrets)
    }

    fn failing(&self) -> bool {
        matches!(self.lack(), Some(Lack::Bad(_)))
    }

    fn expirations(&self) -> Vec<Expiration> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).expirations.clone()
    }

    fn certificates(&self) -> InUse {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.inputs.as_ref().map_or_else(InUse::default, |inputs| shown::of(self.builder.common(), inputs))
    }
}
