//! Invariant 1, for a peer whose handshake is late. Mutation tried: the port of mTLS treated as any other in inbound.rs.

use std::{
    io::{ErrorKind, Read as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use weir_tests::{mesh::PodOptions, wait};

use crate::stage::Stage;

/// Longer than the 10 ms after which a silent client may be one that waits for the server to speak.
const SILENCE: Duration = Duration::from_millis(500);

/// At the port where peers speak mTLS, nothing is said to whoever stays silent; at the application's own port a greeting comes.
#[test]
fn a_greeting_never_leaves_in_clear_at_the_port_of_the_mesh() {
    let mut stage = Stage::start();
    let plain = stage.mesh.pod(&PodOptions::new("plain", 0).enabled(false));
    let logs = stage.mesh.path("logs");
    let _greeter =
        stage.far.daemon("greeter", "socat", &["TCP-LISTEN:7025,fork,reuseaddr", "SYSTEM:echo greeting; cat"], &logs);
    let connect = |port: u16| {
        let stream = TcpStream::connect_timeout(&SocketAddr::new(stage.far.place.v4, port), Duration::from_secs(5))?;
        stream.set_read_timeout(Some(SILENCE))?;
        Ok::<_, std::io::Error>(stream)
    };
    // Somebody outside the mesh, who speaks no TLS, is greeted in clear: that is what he asked for.
    let greeting = wait::until("a greeting", Duration::from_secs(10), || {
        plain.place.netns.enter(|| {
            let mut bytes = [0; 9];
            connect(7025).and_then(|mut stream| stream.read_exact(&mut bytes)).ok().map(|()| bytes)
        })
    });
    assert_eq!(&greeting, b"greeting\n");
    let said = plain.place.netns.enter(|| connect(4143).unwrap().read(&mut [0; 64]));
    assert!(
        matches!(&said, Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)),
        "{said:?}"
    );
    let through =
        stage.client.run("bash", &["-c", &format!("socat -T 5 - TCP:{}:7025 </dev/null", stage.far.place.v4)]);
    assert_eq!(through, "greeting\n");
}
