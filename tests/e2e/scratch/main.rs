use outrigger_tests::*;
#[test]
fn scratch() {
    let pair = pair::pair(&[("redis", 6379, 6379)]);
    let _r = pair.server.pod.serve("redis", 6379, "redis-server --port 6379 --bind '*' --protected-mode no --save ''");
    let mut st = std::process::Command::new("strace").args(["-f","-e","trace=network","-o","/tmp/e2e-strace","-p",&pair.server.proxy.pid().to_string()]).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let mut bad = 0;
    for i in 0..100 {
        let (ok, out) = pair.client.pod.try_sh("redis-cli -h app PING");
        if !ok || out != "PONG\n" { bad += 1; println!("{i}: {ok} {out}"); }
    }
    st.kill().unwrap();
    println!("bad {bad}");
    for w in [&pair.client, &pair.server] {
        println!("=== {}", w.pod.name);
        println!("{}", w.pod.sh("curl -s http://127.0.0.1:15000/stats | grep -v ': 0$'"));
        println!("{}", w.proxy.output().lines().filter(|l| !l.contains("harmless")).collect::<Vec<_>>().join("\n"));
    }
}
