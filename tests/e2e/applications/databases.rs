//! Databases through declared TCP ports: MariaDB speaks first, PostgreSQL brings TLS of its own, Redis pushes.

use std::{
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command,
};

use outrigger_tests::{Pod, Process, eventually, need, pair::pair, peers::program, process::run};

const PORTS: &[(&str, u16, u16)] = &[
    ("mysql", 3306, 3306),
    ("mysql-by-number-not-name", 3307, 3306),
    ("tcp-postgres", 5432, 5432),
    ("whatever", 5433, 5432),
    ("redis", 6379, 6379),
];

/// A folder of that user's own.
fn folder(pod: &Pod, name: &str, user: &str) -> PathBuf {
    let dir = pod.dir().join(name);
    std::fs::create_dir(&dir).unwrap();
    give(&dir, user);
    dir
}

fn give(path: &Path, user: &str) {
    let user = nix::unistd::User::from_name(user).unwrap().unwrap_or_else(|| panic!("no user {user}"));
    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
}

/// As a shell line, a program run as a user.
fn run_as(user: &str, name: &str) -> String {
    format!("runuser -u {user} -- {}", program(name).display())
}

#[test]
fn mariadb() {
    need!("ip", "curl", "mariadbd", "mariadb", "mariadb-install-db");
    let mut pair = pair(PORTS);
    let server = &pair.server.pod;
    let data = folder(server, "mariadb", "mysql");
    let (data, user) = (data.display(), "--no-defaults --user=mysql");
    server.sh(&format!(
        "mariadb-install-db {user} --datadir={data} --auth-root-authentication-method=normal --skip-test-db"
    ));
    let socket = format!("{data}/sock");
    let running = server.serve(
        "mariadbd",
        3306,
        &format!(
            "{} {user} --datadir={data} --socket={socket} --port=3306 --bind-address=* --skip-name-resolve \
             --innodb-buffer-pool-size=32M --innodb-flush-log-at-trx-commit=0",
            program("mariadbd").display()
        ),
    );
    server.sh(&format!(
        "mariadb --no-defaults -uroot --socket={socket} -e \"CREATE DATABASE d; CREATE USER u IDENTIFIED BY 'p'; \
         GRANT ALL ON d.* TO u\""
    ));
    for port in [3306, 3307] {
        let sql = |statements: &str| {
            pair.client.pod.sh(&format!(
                "mariadb --no-defaults --protocol=tcp -h app -P {port} -uu -pp -N -B d -e \"{statements}\""
            ))
        };
        let answer = sql("DROP TABLE IF EXISTS t; CREATE TABLE t (n INT, s LONGTEXT); \
             INSERT INTO t SELECT seq, REPEAT('x', 1000) FROM seq_1_to_5000; SELECT COUNT(*), SUM(n) FROM t");
        assert_eq!(answer, "5000\t12502500\n", "port {port}");
        let rows = sql("SELECT n, s FROM t ORDER BY n");
        let expected: String = (1..=5000).map(|n| format!("{n}\t{}\n", "x".repeat(1000))).collect();
        assert!(rows == expected, "port {port}: {} bytes of {}", rows.len(), expected.len());
        let (ok, error) = pair
            .client
            .pod
            .try_sh(&format!("mariadb --no-defaults --protocol=tcp -h app -P {port} -uu -pwrong -e 'SELECT 1'"));
        assert!(!ok && error.contains("Access denied for user 'u'"), "{error}");
    }
    drop(running);
    pair.assert_sound();
}

#[test]
fn postgresql() {
    need!("ip", "curl", "postgres", "initdb", "psql", "openssl", "runuser");
    let mut pair = pair(PORTS);
    let server = &pair.server.pod;
    let dir = folder(server, "postgres", "postgres");
    let data = dir.join("data");
    run(Command::new("sh")
        .current_dir(&dir)
        .args(["-c", &format!("{} -D {} -U postgres --auth=trust -N", run_as("postgres", "initdb"), data.display())]));
    let (key, certificate) = (dir.join("tls.key"), dir.join("tls.crt"));
    run(Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
        .args([
            "-nodes",
            "-subj",
            "/CN=the database's own",
            "-addext",
            "subjectAltName=DNS:app",
            "-days",
            "1",
            "-keyout",
        ])
        .arg(&key)
        .arg("-out")
        .arg(&certificate));
    [&key, &certificate].into_iter().for_each(|file| give(file, "postgres"));
    std::fs::write(data.join("pg_hba.conf"), "host all all all trust\nlocal all all trust\n").unwrap();
    let running = server.serve(
        "postgres",
        5432,
        &format!(
            "{} -D {} -c listen_addresses=* -c unix_socket_directories={} -c fsync=off -c ssl=on \
             -c ssl_key_file={} -c ssl_cert_file={}",
            run_as("postgres", "postgres"),
            data.display(),
            dir.display(),
            key.display(),
            certificate.display()
        ),
    );
    let root = pair.client.pod.dir().join("postgres-ca.crt");
    std::fs::copy(&certificate, &root).unwrap();
    for port in [5432, 5433] {
        let psql = |tls: &str, statements: &str| {
            let target = format!("host=app port={port} user=postgres connect_timeout=20 {tls}");
            pair.client.pod.sh(&format!("psql -X -q -A -t -v ON_ERROR_STOP=1 '{target}' -c \"{statements}\""))
        };
        let in_tls = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let verified = format!("sslmode=verify-full sslrootcert={}", root.display());
        for (tls, expected) in [("sslmode=disable", "f\n"), ("sslmode=require", "t\n"), (verified.as_str(), "t\n")] {
            eventually("a server that is up", || {
                let (ok, text) = pair.client.pod.try_sh("psql -X 'host=app port=5432 user=postgres' -c 'SELECT 1'");
                if ok { Ok(()) } else { Err(text) }
            });
            assert_eq!(psql(tls, in_tls), expected, "port {port}, {tls}");
            let sum = psql(tls, "SELECT count(*), sum(n), sum(length(repeat('x', n))) FROM generate_series(1, 3000) n");
            assert_eq!(sum, "3000|4501500|4501500\n", "port {port}, {tls}");
            let rows = psql(tls, "SELECT n, repeat('y', 1000) FROM generate_series(1, 5000) n");
            assert_eq!(rows.lines().count(), 5000);
            assert!(rows.ends_with(&format!("5000|{}\n", "y".repeat(1000))));
        }
    }
    let mut running: Process = running;
    running.stop();
    pair.assert_sound();
}

#[test]
fn redis_with_publish_and_subscribe() {
    need!("ip", "curl", "redis-server", "redis-cli");
    let mut pair = pair(PORTS);
    let dir = folder(&pair.server.pod, "redis", "root");
    let running = pair.server.pod.serve(
        "redis",
        6379,
        &format!("redis-server --port 6379 --bind '*' '-::*' --protected-mode no --save '' --dir {}", dir.display()),
    );
    let cli = |input: &str| pair.client.pod.sh(&format!("{input} redis-cli -h app"));
    assert_eq!(cli("printf 'SET k v\\nGET k\\nINCRBY n 41\\nINCR n\\n' |"), "OK\nv\n41\n42\n");
    let piped = pair
        .client
        .pod
        .sh("(for n in $(seq 10000); do printf 'SET key:%d value:%d\\r\\n' $n $n; done) | redis-cli -h app --pipe");
    assert!(piped.contains("errors: 0, replies: 10000"), "{piped}");
    assert_eq!(cli("printf 'DBSIZE\\nGET key:9999\\n' |"), "10002\nvalue:9999\n");

    // A subscriber sends nothing for as long as it listens.
    let mut command = pair.client.pod.command("redis-cli");
    command.args(["-h", "app", "SUBSCRIBE", "news"]);
    let mut subscriber = Process::spawn("subscriber", command, pair.client.pod.dir());
    subscriber.wait_for("subscribe\nnews\n1\n");
    let published = cli("(for n in $(seq 1000); do echo PUBLISH news item-$n; done) |");
    assert_eq!(published, "1\n".repeat(1000), "each had one receiver");
    subscriber.wait_for("message\nnews\nitem-1000\n");
    let heard: Vec<String> =
        subscriber.output().lines().filter(|l| l.starts_with("item-")).map(str::to_owned).collect();
    assert_eq!(heard, (1..=1000).map(|n| format!("item-{n}")).collect::<Vec<_>>());
    drop((subscriber, running));
    pair.assert_sound();
}
