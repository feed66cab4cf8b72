//! Certificates for static proxies: an authority and what it issues, as PEM files.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// Where a certificate and its key are.
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names, no bad name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("keys can be made");
        let pem = params.self_signed(&key).expect("a valid request").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Writes the root as `dir/NAME.pem`.
    pub fn write_root(&self, dir: &Path, name: &str) -> PathBuf {
        let file = dir.join(format!("{name}.pem"));
        std::fs::write(&file, &self.pem).expect("own folder");
        file
    }

    /// Issues a certificate for a URI, valid for years in both directions.
    pub fn issue(&self, dir: &Path, name: &str, uri: &str) -> Files {
        self.issue_until(dir, name, uri, 2099)
    }

    /// As [`Authority::issue`], expiring at the beginning of `year`.
    pub fn issue_until(&self, dir: &Path, name: &str, uri: &str, year: i32) -> Files {
        let mut params = CertificateParams::new(Vec::new()).expect("no names, no bad name");
        params.subject_alt_names.push(SanType::URI(uri.try_into().expect("an ASCII URI")));
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("keys can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("a valid request").pem();
        let files = Files { certificate: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) };
        std::fs::write(&files.certificate, certificate).expect("own folder");
        std::fs::write(&files.key, key.serialize_pem()).expect("own folder");
        files
    }
}
