//! Secrets by name.
use crate::ir::{Name, secret::Secret};
use std::sync::Arc;

#[derive(Debug, Default)]
pub struct Secrets {}

impl Secrets {
    pub fn set(&self, _name: Name, _secret: Arc<Secret>) {
        todo!()
    }
    pub fn remove(&self, _name: &str) {
        todo!()
    }
    pub fn get(&self, _name: &str) -> Option<Arc<Secret>> {
        todo!()
    }
    pub fn generation(&self) -> u64 {
        todo!()
    }
}
