//! TCP proxying, and which filter chain a connection takes.

use crate::harness::{Case, Serve, Talk, Tls, case};

const PLAIN: &str = "
- filters:
  - name: tcp
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
      stat_prefix: tcp
      cluster: $a
      $log
";

fn talk(say: &'static str) -> Talk {
    Talk { say, hear: "", finish: true, tls: None }
}

/// Says nothing: bytes that nobody reads would make a reset of the end.
const SILENT: Talk = Talk { say: "", hear: "", finish: false, tls: None };

fn over_tls(server_name: &'static str, alpn: &'static [&'static str]) -> Talk {
    Talk { tls: Some(Tls { server_name, alpn, certificate: "" }), ..talk("hello") }
}

pub(crate) fn cases() -> Vec<Case> {
    let mut all = plain();
    all.extend(chains());
    all
}

fn plain() -> Vec<Case> {
    vec![
        case("tcp").host("a", Serve::Tcp("")).filter_chains(PLAIN).talk(talk("hello")).talk(talk("")),
        case("tcp-server-first")
            .host("a", Serve::Tcp("220 welcome\r\n"))
            .filter_chains(PLAIN)
            .talk(Talk { hear: "welcome", ..talk("hello") })
            .talk(Talk { say: "", hear: "welcome", finish: true, tls: None }),
        case("tcp-refused")
            .explained(
                "1 < complete | 1 < reset",
                "a connection that leads nowhere is reset: its end is not taken for an empty answer",
            )
            .explained(
                "flags= | details= | upstream=",
                "Envoy calls every failed connect exhausted retries, and logs no details for TCP",
            )
            .host("a", Serve::Nothing)
            .filter_chains(PLAIN)
            .talk(SILENT),
        case("tcp-connect-timeout")
            .explained(
                "1 < complete | 1 < reset",
                "a connection that leads nowhere is reset: its end is not taken for an empty answer",
            )
            .explained(
                "flags= | details= | upstream= | failure=",
                "Envoy calls every failed connect exhausted retries, and logs no details for TCP",
            )
            .host("a", Serve::BlackHole)
            .cluster("a", &["a"], "connect_timeout: 0.5s")
            .filter_chains(PLAIN)
            .talk(SILENT),
        case("tcp-connect-attempts")
            .explained(
                "1 < complete | 1 < reset",
                "a connection that leads nowhere is reset: its end is not taken for an empty answer",
            )
            .explained(
                "flags= | details= | upstream=",
                "Envoy calls every failed connect exhausted retries, and logs no details for TCP",
            )
            .host("a", Serve::Nothing)
            .filter_chains(
                "
                - filters:
                  - name: tcp
                    typed_config:
                      '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                      stat_prefix: tcp
                      cluster: $a
                      max_connect_attempts: 3
                      $log
                ",
            )
            .talk(SILENT),
        case("tcp-weighted")
            .host("a", Serve::Tcp(""))
            .host("b", Serve::Tcp(""))
            .filter_chains(
                "
                - filters:
                  - name: tcp
                    typed_config:
                      '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                      stat_prefix: tcp
                      weighted_clusters: {clusters: [{name: $a, weight: 1}, {name: $b, weight: 3}]}
                ",
            )
            .client_only()
            .talks(150, talk("x")),
        case("tcp-idle-timeout")
            .explained("flags= | details=", "the log names the timeout")
            .host("a", Serve::Tcp(""))
            .filter_chains(
                "
                - filters:
                  - name: tcp
                    typed_config:
                      '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                      stat_prefix: tcp
                      cluster: $a
                      idle_timeout: 0.7s
                      $log
                ",
            )
            .talk(Talk { finish: false, ..talk("hello") }),
        case("tcp-max-duration")
            .explained("details=", "Envoy logs no details for TCP")
            .host("a", Serve::Tcp(""))
            .filter_chains(
                "
                - filters:
                  - name: tcp
                    typed_config:
                      '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                      stat_prefix: tcp
                      cluster: $a
                      max_downstream_connection_duration: 0.7s
                      $log
                ",
            )
            .talk(Talk { finish: false, ..talk("hello") }),
        case("tcp-no-cluster")
            .explained(
                "1 < complete | 1 < reset",
                "a connection that leads nowhere is reset: its end is not taken for an empty answer",
            )
            .explained("details= | cluster=", "the log names the cluster that is missing")
            .filter_chains(
                "
                - filters:
                  - name: tcp
                    typed_config:
                      '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                      stat_prefix: tcp
                      cluster: nobody
                      $log
                ",
            )
            .talk(SILENT),
        case("tcp-no-hosts")
            .explained(
                "1 < complete | 1 < reset",
                "a connection that leads nowhere is reset: its end is not taken for an empty answer",
            )
            .explained("details=", "Envoy logs no details for TCP")
            .cluster("a", &[], "")
            .filter_chains(PLAIN)
            .talk(SILENT),
        case("tcp-max-connections")
            .explained(
                "1 < complete | 1 < reset",
                "a connection that leads nowhere is reset: its end is not taken for an empty answer",
            )
            .explained("details= | attempts= | failure=", "the log names the limit")
            .host("a", Serve::Tcp(""))
            .cluster("a", &["a"], "circuit_breakers: {thresholds: [{max_connections: 0}]}")
            .filter_chains(PLAIN)
            .talk(SILENT),
    ]
}

fn chains() -> Vec<Case> {
    // The answer names the chain.
    const CHAIN: &str = "
    - filter_chain_match: {server_names: [exact.test]}
      transport_socket: &one
        name: tls
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates: [{certificate_chain: {filename: $dir/one.crt}, private_key: {filename: $dir/one.key}}]
      filters: &exact
      - name: direct
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: exact
          cluster: $exact
    - filter_chain_match: {server_names: ['*.wild.test']}
      transport_socket:
        name: tls
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificates: [{certificate_chain: {filename: $dir/two.crt}, private_key: {filename: $dir/two.key}}]
      filters:
      - name: direct
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: wild
          cluster: $wild
    - filter_chain_match: {transport_protocol: raw_buffer}
      filters:
      - name: direct
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: raw
          cluster: $raw
    ";
    const INSPECTOR: &str = "
    listener_filters:
    - name: tls
      typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}
    ";
    vec![
        case("chains-by-server-name")
            .host("exact", Serve::Tcp(""))
            .host("wild", Serve::Tcp(""))
            .host("raw", Serve::Tcp(""))
            .listener(INSPECTOR)
            .filter_chains(CHAIN)
            .talk(over_tls("exact.test", &[]))
            .talk(over_tls("a.wild.test", &[]))
            .talk(over_tls("b.a.wild.test", &[]))
            .talk(over_tls("wild.test", &[]))
            .talk(over_tls("other.test", &[]))
            .talk(over_tls("", &[]))
            .talk(over_tls("exact.test", &["h2"]))
            .talk(over_tls("exact.test", &["http/1.1", "h2"]))
            .talk(over_tls("exact.test", &["unknown"]))
            .talk(Talk { hear: "PLAIN TEXT", ..talk("plain text") }),
        case("chains-by-application-protocol")
            .host("h2", Serve::Tcp(""))
            .host("any", Serve::Tcp(""))
            .listener(INSPECTOR)
            .filter_chains(
                "
                - filter_chain_match: {application_protocols: [h2]}
                  filters:
                  - name: direct
                    typed_config:
                      '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                      stat_prefix: h2
                      cluster: $h2
                  transport_socket: &tls
                    name: tls
                    typed_config:
                      '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
                      common_tls_context:
                        alpn_protocols: [h2, http/1.1]
                        tls_certificates: [{certificate_chain: {filename: $dir/one.crt}, private_key: {filename: $dir/one.key}}]
                - filter_chain_match: {transport_protocol: tls}
                  filters:
                  - name: direct
                    typed_config:
                      '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                      stat_prefix: any
                      cluster: $any
                  transport_socket: *tls
                ",
            )
            .talk(over_tls("x.test", &["h2", "http/1.1"]))
            .talk(over_tls("x.test", &["http/1.1"]))
            .talk(over_tls("x.test", &[])),
        case("default-filter-chain")
            .host("special", Serve::Tcp(""))
            .host("rest", Serve::Tcp(""))
            .listener(
                "
                listener_filters:
                - name: tls
                  typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}
                default_filter_chain:
                  filters:
                  - name: direct
                    typed_config:
                      '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                      stat_prefix: rest
                      cluster: $rest
                ",
            )
            .filter_chains(
                "
                - filter_chain_match: {server_names: [special.test]}
                  filters:
                  - name: direct
                    typed_config:
                      '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                      stat_prefix: special
                      cluster: $special
                  transport_socket:
                    name: tls
                    typed_config:
                      '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
                      common_tls_context:
                        tls_certificates: [{certificate_chain: {filename: $dir/one.crt}, private_key: {filename: $dir/one.key}}]
                ",
            )
            .talk(over_tls("special.test", &[]))
            .talk(Talk { hear: "PLAIN", ..talk("plain") }),
        case("chains-by-source-and-port")
            .host("near", Serve::Tcp(""))
            .host("far", Serve::Tcp(""))
            .filter_chains(
                "
                - filter_chain_match: {source_prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}
                  filters:
                  - name: direct
                    typed_config:
                      '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                      stat_prefix: far
                      cluster: $far
                - filter_chain_match: {source_prefix_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}], source_type: SAME_IP_OR_LOOPBACK}
                  filters:
                  - name: direct
                    typed_config:
                      '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                      stat_prefix: near
                      cluster: $near
                ",
            )
            .talk(talk("hello")),
        case("no-chain-matches")
            .host("far", Serve::Tcp(""))
            .filter_chains(
                "
                - filter_chain_match: {source_prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}
                  filters:
                  - name: direct
                    typed_config:
                      '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                      stat_prefix: far
                      cluster: $far
                ",
            )
            .talk(talk("")),
    ]
}
