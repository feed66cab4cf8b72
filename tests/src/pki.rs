//! Certificates for static proxies: an authority and what it issues, as PEM files.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
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

    /// Issues a certificate for a common name and these other names: URIs where there is a colon, else DNS names.
    pub fn issue_named(&self, dir: &Path, name: &str, common_name: &str, names: &[&str]) -> Files {
        let mut params = CertificateParams::new(Vec::new()).expect("no names, no bad name");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names.extend(names.iter().map(|name| match name.contains(':') {
            true => SanType::URI((*name).try_into().expect("an ASCII URI")),
            false => SanType::DnsName((*name).try_into().expect("an ASCII name")),
        }));
        self.write(dir, name, params, 2099)
    }

    /// As [`Authority::issue`], expiring at the beginning of `year`.
    pub fn issue_until(&self, dir: &Path, name: &str, uri: &str, year: i32) -> Files {
        let mut params = CertificateParams::new(Vec::new()).expect("no names, no bad name");
        params.subject_alt_names.push(SanType::URI(uri.try_into().expect("an ASCII URI")));
        self.write(dir, name, params, year)
    }

    fn write(&self, dir: &Path, name: &str, mut params: CertificateParams, year: i32) -> Files {
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
