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
    der: Vec<u8>,
}

/// What a workload's certificate says.
fn leaf(uri: &str, year: i32) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names, no bad name");
    params.subject_alt_names.push(SanType::URI(uri.try_into().expect("an ASCII URI")));
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(year, 1, 1);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    (params, KeyPair::generate().expect("keys can be made"))
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
        let root = params.self_signed(&key).expect("a valid request");
        let (pem, der) = (root.pem(), root.der().to_vec());
        Self { issuer: Issuer::new(params, key), pem, der }
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

    /// An identity as a SPIFFE agent hands it over, valid for years.
    pub fn svid(&self, id: &str) -> outrigger_wire::workload::X509Svid {
        let (params, key) = leaf(id, 2099);
        let certificate = params.signed_by(&key, &self.issuer).expect("a valid request");
        outrigger_wire::workload::X509Svid {
            spiffe_id: id.to_owned(),
            x509_svid: certificate.der().to_vec(),
            x509_svid_key: key.serialize_der(),
            bundle: self.der.clone(),
            hint: String::new(),
        }
    }

    /// The root in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Issues a certificate for a URI, valid for years in both directions.
    pub fn issue(&self, dir: &Path, name: &str, uri: &str) -> Files {
        self.issue_until(dir, name, uri, 2099)
    }

    /// Issues a certificate for a DNS name.
    pub fn issue_host(&self, dir: &Path, name: &str, host: &str) -> Files {
        let (mut params, key) = leaf("https://unused.example/", 2099);
        params.subject_alt_names = vec![SanType::DnsName(host.try_into().expect("an ASCII name"))];
        self.write(dir, name, (params, key))
    }

    /// Issues a certificate for a common name and these other names: URIs where there is a colon, else DNS names.
    pub fn issue_named(&self, dir: &Path, name: &str, common_name: &str, names: &[&str]) -> Files {
        let (mut params, key) = leaf("https://unused.example/", 2099);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.contains(':') {
                true => SanType::URI((*name).try_into().expect("an ASCII URI")),
                false => SanType::DnsName((*name).try_into().expect("an ASCII name")),
            })
            .collect();
        self.write(dir, name, (params, key))
    }

    /// As [`Authority::issue`], expiring at the beginning of `year`.
    pub fn issue_until(&self, dir: &Path, name: &str, uri: &str, year: i32) -> Files {
        self.write(dir, name, leaf(uri, year))
    }

    fn write(&self, dir: &Path, name: &str, (params, key): (CertificateParams, KeyPair)) -> Files {
        let certificate = params.signed_by(&key, &self.issuer).expect("a valid request").pem();
        let files = Files { certificate: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) };
        std::fs::write(&files.certificate, certificate).expect("own folder");
        std::fs::write(&files.key, key.serialize_pem()).expect("own folder");
        files
    }
}
