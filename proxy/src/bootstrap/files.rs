//! The files that a bootstrap names, for `--mode validate`: can they be read?

use std::{fs::File, path::Path};

use super::{Bootstrap, BootstrapError};
use crate::ir::{
    ConfigSource,
    secret::{Certificate, CertificateSource, CommonTls, DataSource, Secret, Validation, ValidationSource},
};

pub(super) fn readable(bootstrap: &Bootstrap) -> Result<(), BootstrapError> {
    let chains = bootstrap.listeners.iter().flat_map(|l| l.chains.iter().chain(&l.default_chain));
    for tls in chains.filter_map(|c| c.tls.as_ref()) {
        context(&tls.common)?;
    }
    for cluster in &bootstrap.clusters {
        let matched = cluster.transport_matches.iter().filter_map(|m| m.tls.as_ref());
        for tls in cluster.tls.iter().chain(matched) {
            context(&tls.common)?;
        }
    }
    for (_, secret) in &bootstrap.secrets {
        match &**secret {
            Secret::Certificate(c) => certificate(c)?,
            Secret::Validation(v) => validation(v)?,
        }
    }
    for source in [&bootstrap.dynamic.lds, &bootstrap.dynamic.cds].into_iter().flatten() {
        if let ConfigSource::Path { path, .. } = source {
            open(Path::new(path))?;
        }
    }
    Ok(())
}

fn context(tls: &CommonTls) -> Result<(), BootstrapError> {
    for source in &tls.certificates {
        if let CertificateSource::Static(c) = source {
            certificate(c)?;
        }
    }
    match &tls.validation {
        ValidationSource::Static(v) | ValidationSource::Combined { default: v, .. } => validation(v),
        ValidationSource::None | ValidationSource::Sds(_) => Ok(()),
    }
}

fn certificate(certificate: &Certificate) -> Result<(), BootstrapError> {
    data(&certificate.chain)?;
    data(&certificate.key)
}

fn validation(validation: &Validation) -> Result<(), BootstrapError> {
    validation.trusted_ca.iter().chain(&validation.crl).try_for_each(data)
}

fn data(source: &DataSource) -> Result<(), BootstrapError> {
    match source {
        DataSource::File(path) => open(path),
        DataSource::Inline(_) => Ok(()),
    }
}

fn open(path: &Path) -> Result<(), BootstrapError> {
    let failed = |e: std::io::Error| BootstrapError::File { path: path.to_owned(), reason: e.to_string() };
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(BootstrapError::File { path: path.to_owned(), reason: "is a directory".into() });
    }
    Ok(())
}
