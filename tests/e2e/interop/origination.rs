//! TLS that an operator asks for by DestinationRule, towards a server that knows nothing of the mesh.

use std::path::Path;

use outrigger_tests::{Mesh, eventually, need, pki::Authority, process::run};

const ADDRESS: &str = "10.96.0.50";
const HOST: &str = "legacy.external";

fn rule(tls: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: legacy, namespace: default}}\nspec:\n  \
         host: {HOST}\n  trafficPolicy:\n    tls: {tls}\n"
    )
}

#[test]
fn applications_speak_http_and_the_proxy_tls() {
    need!("ip", "curl", "openssl");
    let mut mesh = Mesh::start(&[(ADDRESS, HOST)]);
    let external = mesh.outsider("external");
    let dir = mesh.dir().to_path_buf();
    let (public, stranger) = (Authority::new("public"), Authority::new("stranger"));
    public.write_root(&dir, "public");
    stranger.write_root(&dir, "stranger");
    public.issue_host(&dir, "server", HOST);
    public.issue_host(&dir, "client", "client.example");
    run(std::process::Command::new("sh")
        .args(["-c", &format!("chmod 644 {0}/*.pem {0}/*.crt {0}/*.key", dir.display())]));
    // Says in its page how the session came about; the second one wants to know who calls.
    let server = |port: u16, more: &str| {
        let files = format!("-cert {0}/server.crt -key {0}/server.key -CAfile {0}/public.pem", dir.display());
        external.serve("tls", port, &format!("openssl s_server -accept {port} {files} {more} -www"))
    };
    let _servers = [server(8443, ""), server(9443, "-Verify 1 -verify_return_error")];
    mesh.apply(
        "external.yaml",
        &format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: legacy, namespace: default}}\nspec:\n  \
             hosts: [{HOST}]\n  addresses: [{ADDRESS}]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n  ports:\n  \
             - {{number: 80, name: http, protocol: HTTP, targetPort: 8443}}\n  \
             - {{number: 81, name: http-mutual, protocol: HTTP, targetPort: 9443}}\n  endpoints:\n  - address: {}\n",
            external.ip4
        ),
    );
    let client = mesh.workload("client", &[("app", "client")]);
    let file = |name: &str| Path::new(&dir).join(name).display().to_string();
    let own = format!("clientCertificate: {}, privateKey: {}", file("client.crt"), file("client.key"));
    let (public, stranger) = (file("public.pem"), file("stranger.pem"));
    for (what, tls, plain, mutual) in [
        ("SIMPLE", format!("{{mode: SIMPLE, caCertificates: {public}}}"), true, false),
        ("a CA nobody trusts", format!("{{mode: SIMPLE, caCertificates: {stranger}}}"), false, false),
        ("the public CAs of the machine", "{mode: SIMPLE}".to_owned(), false, false),
        (
            "another name",
            format!("{{mode: SIMPLE, caCertificates: {public}, subjectAltNames: [other.external]}}"),
            false,
            false,
        ),
        (
            "one of several names",
            format!("{{mode: SIMPLE, caCertificates: {public}, subjectAltNames: [other.external, {HOST}]}}"),
            true,
            false,
        ),
        ("another SNI", format!("{{mode: SIMPLE, caCertificates: {public}, sni: other.external}}"), false, false),
        ("no verification", "{mode: SIMPLE, insecureSkipVerify: true}".to_owned(), true, false),
        ("MUTUAL", format!("{{mode: MUTUAL, caCertificates: {public}, {own}}}"), true, true),
        ("DISABLE", "{mode: DISABLE}".to_owned(), false, false),
    ] {
        mesh.apply_and_wait("rule.yaml", &rule(&tls));
        for (port, works) in [(80, plain), (81, mutual)] {
            eventually(&format!("{what}, port {port}"), || {
                let answer = client.pod.try_sh(&format!("curl -sS -m 20 http://{HOST}:{port}/")).1;
                let served = answer.contains("Cipher");
                if served == works { Ok(()) } else { Err(answer) }
            });
        }
    }
    mesh.assert_no_refusals();
}
