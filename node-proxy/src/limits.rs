//! Every bound of the data plane, each with its reason. `docs/limits.md` lists them for operators.
//!
//! Must never hold a number whose reason is not written beside it.

use std::time::Duration;

// ---- accept, worker ----

/// Open captured connections of one workload, both directions. One workload must not eat the node's descriptors.
pub const WORKLOAD_CONNECTIONS: usize = 16_384;
/// Pause after `accept` failed for want of descriptors or memory: the queue stays in the kernel, nothing is refused.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// Commands waiting for one worker (pods captured, released, drain). More waits in the sender.
pub const WORKER_COMMANDS: usize = 256;
/// Worker threads at most: more than this on one node means that the quota was misread.
pub const WORKERS: usize = 64;

// ---- detection ----

/// A client silent for this long may be waiting for the server's greeting: the upstream is dialled meanwhile.
pub const SILENCE: Duration = Duration::from_millis(10);
/// Redirects of kubelet's probes known of one pod at a time: kubelet follows ten in a row, each at once.
pub const REDIRECTS_PER_POD: usize = 16;
/// For so long a redirect may be followed: kubelet does it within the probe's own time limit, most often a second.
pub const REDIRECT_FOLLOWED: Duration = Duration::from_secs(60);
/// First bytes that dribble for longer are opaque (Linkerd's detection timeout).
pub const DETECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes kept while detecting. A ClientHello with a post-quantum key share is about 1.8 KiB; Linkerd buffers 8 KiB.
pub const DETECT_BYTES: usize = 8 * 1024;

// ---- dialling ----

/// TCP connect towards another node (Linkerd's default).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// TCP connect towards the application on this node (Linkerd's default).
pub const APP_CONNECT_TIMEOUT: Duration = Duration::from_millis(300);
/// TLS handshake, either side: covers a certificate that is still being issued by the peer.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection waits for its workload's own certificate before it is refused with that reason.
pub const CERTIFICATE_WAIT: Duration = Duration::from_secs(10);
/// Dead peers are noticed after this long without acknowledgement (TCP_USER_TIMEOUT; Linkerd's default).
pub const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// First keep-alive probe of an idle TCP connection (Linkerd's default).
pub const KEEPALIVE: Duration = Duration::from_secs(10);

// ---- TLS ----

/// Bytes read ahead in a handshake: a flight with a chain of `CHAIN` certificates is below 16 KiB.
pub const TLS_HANDSHAKE_BYTES: usize = 64 * 1024;
/// Bytes of one handshake message after the handshake: session tickets are some hundred.
pub const TLS_MESSAGE_BYTES: usize = 16 * 1024;
/// Records sealed with one key before it is changed: half of what AES-GCM is good for (RFC 8446 5.5).
pub const TLS_RECORDS_PER_KEY: u64 = 1 << 23;

/// Bytes that the kernel keeps unsent for one connection: without a bound it is megabytes for each peer that does not read, on every
/// hop. What is on its way to the peer does not count, so that a long line is still filled.
pub const UNSENT_BYTES: u32 = 512 * 1024;

// ---- pools ----

/// Idle connections to an application are dropped before common servers drop theirs (Node.js: 5 s): no lost races.
pub const APP_IDLE: Duration = Duration::from_secs(3);
/// Idle mTLS connections between nodes: a handshake costs as much as 30 requests, the far side waits longer than this.
pub const PEER_IDLE: Duration = Duration::from_secs(60);
/// Idle HTTP/1 connections of one worker to one endpoint for one client identity.
pub const IDLE_PER_ENDPOINT: usize = 128;
/// Idle HTTP/1 connections of one worker in all.
pub const IDLE_PER_WORKER: usize = 4_096;
/// HTTP/2 connections of one worker to one endpoint for one client identity: opened when the others are full.
pub const HTTP2_PER_ENDPOINT: usize = 8;
/// How often a worker looks for idle connections that are over their time.
pub const POOL_SWEEP: Duration = Duration::from_secs(1);

/// Dials of one worker that go on although their request is over: what clients that come and go at once may leave behind.
pub const DIALS_ADOPTED: usize = 64;

// ---- HTTP ----

/// Header fields of one message: curl, nginx and Envoy agree on about this. hyper's own bound; tests/tests/interop/errors.rs holds it.
pub const HTTP_HEADERS: usize = 100;
/// Bytes of one HTTP/1 head, and hyper's read buffer per connection.
pub const HTTP1_HEAD_BYTES: usize = 64 * 1024;
/// Bytes of interim responses (1xx) that wait for one HTTP/1 client to read them; more are dropped, as RFC 9110 15.2 lets a client do with all.
pub const INTERIM_BYTES: usize = 16 * 1024;
/// Bytes of one HTTP/2 header list, decoded.
pub const HTTP2_HEAD_BYTES: u32 = 64 * 1024;
/// A head must be complete this long after its first wait began (Linkerd's default).
pub const HTTP1_HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Concurrent streams that one HTTP/2 peer may open. nginx: 128, Envoy advises 100.
pub const HTTP2_STREAMS: u32 = 256;
/// Streams to a server that were reset here, at the end of a time limit or for a client that left, and whose last frames may still come.
/// What comes for one that was forgotten is an error of the server's, and too many of those end the connection.
pub const HTTP2_OWN_RESETS: usize = 1024;
/// Streams a peer may reset before they were accepted (CVE-2023-44487); over it the connection ends.
pub const HTTP2_PENDING_RESETS: usize = 64;
/// Streams reset for the peer's own errors before the connection ends (CVE-2024-0003 class).
pub const HTTP2_ERROR_RESETS: usize = 256;
/// Receive window of one stream: what one slow reader may make us hold.
pub const HTTP2_STREAM_WINDOW: u32 = 65_535;
/// Receive window of one connection (Linkerd's default).
pub const HTTP2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes buffered towards a peer for one stream.
pub const HTTP2_SEND_BUFFER: usize = 64 * 1024;
/// Ping on a silent HTTP/2 connection (Linkerd's default), answered within `HTTP2_PING_TIMEOUT`.
pub const HTTP2_PING: Duration = Duration::from_secs(10);
/// A ping without answer for this long means that the peer is gone.
pub const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(3);
/// An HTTP connection without a request gives its buffers back after this long and waits as a bare socket.
pub const HTTP_PARK: Duration = Duration::from_secs(1);
/// For so long the rest of a request that was answered without it is read away: a client that sends on meanwhile has the answer.
pub const DISCARD: Duration = Duration::from_secs(5);
/// Bytes of such a rest at most; nothing of it is kept. Beyond it the stream or connection is closed.
pub const DISCARDED_BYTES: usize = 16 << 20;
/// What an endpoint that failed counts as having taken, for the balancer: it is the last to be picked for a while.
pub const FAILURE_COST: Duration = Duration::from_secs(5);
/// Tries of one request over pooled connections that turn out to be closed before anything was sent on them.
pub const POOL_RETRIES: usize = 3;
/// Bytes of a request's body that are kept so that it can be sent again (Linkerd's bound); a larger one is sent once.
pub const REPLAY_BYTES: usize = 64 * 1024;
/// How long the end of a gRPC response that has begun without a status is waited for: a server that failed says so at once.
pub const RETRY_PEEK: Duration = Duration::from_millis(10);
/// Copies of requests that one worker has under way: a mirror that never answers holds a connection for each, for `MIRROR_WITHIN`.
pub const MIRRORS: usize = 512;
/// The same from one workload to one mirror of one route, over all workers: one that hangs leaves room for the others. At 20 ms a copy, 6,400 a second.
pub const MIRRORS_OF_ONE: usize = 128;
/// Bytes of a body that may wait for one mirror: what comes in while a connection to it is made. One that is further behind gets no more.
pub const MIRROR_BYTES: usize = 4 << 20;
/// Bytes that wait for all mirrors of one worker: a part of the proxy's memory that is not missed.
pub const MIRRORS_BYTES: usize = 16 << 20;
/// Bytes that a mirror's connection is given at once. What its buffers hold stands behind that, up to `UNSENT_BYTES` in the kernel.
pub const MIRROR_FRAME: usize = 64 * 1024;
/// How long a mirror is left alone after an endpoint of its could not be reached: a refusal takes less than a millisecond.
pub const MIRROR_REST: Duration = Duration::from_millis(100);
/// When the whole request is there, its copy may go on for so long, answer included: more than most servers take for anything.
pub const MIRROR_WITHIN: Duration = Duration::from_secs(10);
/// Series handles remembered per HTTP connection: clients rarely talk to more endpoints by more rules over one connection.
pub const CONNECTION_SERIES: usize = 64;

// ---- copying ----

/// Bytes per read and write of opaque traffic at most: 64 KiB cost a third more CPU per byte over mTLS, more than this gains nothing.
pub const COPY_BYTES: usize = 256 * 1024;
/// The same for a flow that begins, or whose sink takes little at once.
pub const COPY_BYTES_FIRST: usize = 64 * 1024;
/// Bytes that one poll of a connection's task moves before the worker's other connections have their turn: about 0.2 ms over mTLS.
pub const POLL_BYTES: usize = 128 * 1024;
/// Tasks that a worker runs before it looks at its sockets again: with all of them at `POLL_BYTES`, 2 ms.
pub const POLLS_PER_LOOK: u32 = 8;
/// One direction closed and no byte in the other for this long: nobody is there any more.
pub const HALF_CLOSED_IDLE: Duration = Duration::from_secs(600);

// ---- leaving ----

/// On SIGTERM, open requests and connections may go on for this long (Linkerd: 120 s; kubelet's default is 30 s).
pub const DRAIN: Duration = Duration::from_secs(25);
/// A kept HTTP/1 connection without a request is closed this long after draining began: most clients ask again before, and then are told
/// that it was the last time. Closed at once, it would cross requests on their way.
pub const DRAIN_IDLE: Duration = Duration::from_secs(5);
/// What a draining worker may take beyond `DRAIN` before it is killed.
pub const DRAIN_GRACE: Duration = Duration::from_secs(3);
/// Pause before a worker that died is started again.
pub const RESTART_PAUSE_MIN: Duration = Duration::from_millis(10);
/// The same for one that keeps dying: connections wait in the accept queue meanwhile.
pub const RESTART_PAUSE_MAX: Duration = Duration::from_secs(5);
/// A worker that lived this long did not die of its start.
pub const RESTART_LIVED: Duration = Duration::from_secs(30);

// ---- queues ----

/// Requests and connections that wait for a ready endpoint of one destination (Linkerd's default).
pub const QUEUE_CAPACITY: usize = 100;
/// How long they wait before the destination is in failfast (Linkerd's default).
pub const FAILFAST: Duration = Duration::from_secs(3);
/// Destinations that have waiters or are in failfast at a time.
pub const QUEUES: usize = 4_096;

// ---- start ----

/// How long a starting worker waits for what the holder kept; the accept queues wait with it.
pub const VAULT_WAIT: Duration = Duration::from_secs(2);

// ---- telemetry ----

/// Series of one workload, per kind (HTTP, TCP, routes, their backends, their mirrors). More than this is a client that invents names: the rest shares one overflow series.
pub const SERIES_PER_WORKLOAD: usize = 1_024;
/// Series of the whole node, per kind: with their labels about 1 KiB each.
pub const SERIES_PER_NODE: usize = 8_192;
/// Overflow series of single workloads; kubelet runs 110 pods on a node by default, each has two directions.
pub const OVERFLOW_SERIES: usize = 1_024;
/// Distinct (status, classification, gRPC status, error) of one series; more share one per classification.
pub const RESPONSE_KINDS: usize = 32;
/// Distinct close reasons of one TCP series, and distinct error labels of one family: both come from fixed tables.
pub const CLOSE_KINDS: usize = 24;
/// Server names counted for passed-through TLS; a client can invent any number.
pub const SNI_NAMES: usize = 256;
/// Bytes of one label value that a peer chose: the longest DNS name with a port.
pub const LABEL_BYTES: usize = 260;
/// A series without change for this long is dropped (Linkerd's default).
pub const SERIES_IDLE: Duration = Duration::from_secs(600);
/// Series of a workload that left stay for some scrapes, so that its last counts are seen.
pub const SERIES_LEFT: Duration = Duration::from_secs(120);
/// Bytes of one piece of a scrape: a scrape is never in memory as a whole.
pub const SCRAPE_CHUNK: usize = 32 * 1024;

// ---- reports ----

/// How often traffic is sampled for reports.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
/// Samples kept: 300 seconds, the longest window that can be asked for.
pub const SAMPLES: usize = 60;
/// Distinct (workload, peer, service, identities) of one sample, with about 128 bytes each; more share one per workload.
pub const SAMPLE_KEYS: usize = 1_024;
/// Distinct (workload, Service, route, backend) of one sample, with about 128 bytes each; more share two per workload.
pub const SAMPLE_ROUTES: usize = 1_024;
/// Lines about routes of one report, the busiest ones: 600 KB, so that what `weir` takes in one answer holds those of 400 nodes.
pub const ROUTES_REPORTED: usize = 2_000;

// ---- admin ----

/// Open connections to the admin server: scrapers, probes and a person.
pub const ADMIN_CONNECTIONS: usize = 64;
/// Bytes of a request head to the admin server, and of its read buffer.
pub const ADMIN_HEAD_BYTES: usize = 16 * 1024;
/// Header fields of one request to the admin server.
pub const ADMIN_HEADERS: usize = 64;
/// Bytes of a request body to the admin server: a log filter.
pub const ADMIN_BODY_BYTES: usize = 4 * 1024;
/// A request head to the admin server must be complete after this, idle time before it included.
pub const ADMIN_HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// One connection to the admin server at most: slow readers leave. Scrapers just open another.
pub const ADMIN_CONNECTION: Duration = Duration::from_secs(600);

// ---- access log ----

/// Lines waiting for the writer. About a second of a busy node; more are dropped and counted.
pub const ACCESS_LOG_LINES: usize = 8_192;
/// Bytes kept of each field that a peer chose (URI, user agent, …).
pub const ACCESS_LOG_FIELD: usize = 2_048;

// ---- handover between holder and proxy ----

/// Bytes of one handover message: a pod's specification with all its exclusions is about 4 KiB.
pub const HANDOVER_MESSAGE_BYTES: usize = 64 * 1024;
/// Descriptors in one handover message: a batch of dial sockets. The kernel allows 253.
pub const HANDOVER_FDS: usize = 64;
/// Proxies that one holder serves at once: the old and the new one of an upgrade.
pub const HANDOVER_PROXIES: usize = 2;
/// Messages waiting for one peer of the handover: two for each pod and some. A peer further behind is cut off.
pub const HANDOVER_QUEUE: usize = 4_096;
/// Requests waiting in the holder; more wait in the socket.
pub const HOLDER_REQUESTS: usize = 256;
/// Dial sockets in one stock at least, and in its first batch.
pub const STOCK_MIN: usize = 4;
/// Dial sockets in one stock at most: at 1,000 dials/s a refill every 30 ms.
pub const STOCK_MAX: usize = HANDOVER_FDS;
/// Dial sockets in all stocks together: a fraction of the proxy's descriptors. Over it, batches stay minimal.
pub const STOCK_BUDGET: usize = 4_096;
/// A stock that nobody took from for this long is closed.
pub const STOCK_IDLE: Duration = Duration::from_secs(30);
/// How long a dial waits for a socket from the holder.
pub const STOCK_WAIT: Duration = Duration::from_secs(3);
/// Pause between attempts to reach a holder that is away.
pub const HOLDER_RETRY: Duration = Duration::from_millis(100);

// ---- holder ----

/// Connections waiting in one pod's listener while the proxy restarts: 2 seconds of a busy pod.
pub const LISTEN_BACKLOG: i32 = 4_096;
/// Between "no new capture" and "no lookup": a connect that was marked just before has sent its SYN by then.
pub const RELEASE_SETTLE: Duration = Duration::from_millis(50);
/// Socket lookups that the holder has loaded for pods to come: a label on a namespace enrols this many of one node without a wait for
/// the verifier. Some kilobytes of the kernel's memory each.
pub const PROGRAM_STOCK: usize = 32;
/// When nothing has happened for this long, the holder loads one more of them.
pub const STOCK_PAUSE: Duration = Duration::from_millis(20);
/// Between "no lookup" and "no listener": handshakes that the listener has begun are complete by then.
pub const LISTENER_SETTLE: Duration = Duration::from_millis(250);
/// How often a pod that left is looked at for captured connections that still need its routes.
pub const DRAIN_CHECK: Duration = Duration::from_secs(1);
/// How often rules, routes and namespaces are looked at without being told that they changed.
pub const RECHECK: Duration = Duration::from_secs(10);
/// Changes in a namespace are looked at together this long after the first.
pub const REPAIR_DELAY: Duration = Duration::from_millis(20);
/// How long a restarted holder waits for proxies to give listeners back before it opens new ones in their place.
pub const LISTENER_RETURN: Duration = Duration::from_secs(3);
/// How often the directory of pods is read without being told that it changed.
pub const PODS_RESCAN: Duration = Duration::from_secs(5);
/// Files in the directory of pods, and bytes of one of them.
pub const POD_FILES: usize = 2_048;
/// Bytes of one file in the directory of pods.
pub const POD_FILE_BYTES: u64 = 64 * 1024;
/// A pod that is not found among the processes is looked for again after this, or nine times what listing them took (50 µs each) if
/// that is more.
pub const PROCESSES_RESCAN: Duration = Duration::from_millis(20);

/// Bytes of a ServiceAccount's token: a kilobyte or two, more with many audiences.
pub const TOKEN_BYTES: u64 = 64 * 1024;
/// The API server has this long to say whether the holder's DaemonSet is there.
pub const INSTALLED_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of that answer: a DaemonSet is some kilobytes, etcd takes no object above 1.5 MiB.
pub const INSTALLED_BYTES: usize = 2 << 20;
/// A holder whose token is refused waits this long for a successor before it takes the node out of the mesh: a pod that was deleted by
/// force is replaced within seconds.
pub const SUCCESSOR_WITHIN: Duration = Duration::from_secs(10);
/// How often it asks again meanwhile: an API server that cannot look a pod up refuses its token too.
pub const INSTALLED_AGAIN: Duration = Duration::from_millis(500);
/// Open connections have this long to end when Weir is uninstalled; with the two times before, a little less than the holder's grace
/// period.
pub const UNINSTALL_WITHIN: Duration = Duration::from_secs(40);

// ---- CNI plugin ----

/// A new pod waits this long for control's word; then the container runtime tries again. kubelet gives the runtime two minutes.
pub const CNI_WAIT: Duration = Duration::from_secs(20);
/// With control away, a new pod waits this long before its namespace decides: a stream that broke is back in less.
pub const CNI_AWAY: Duration = Duration::from_secs(3);
/// A pod that cannot be captured waits this long before that is said: a sandbox of the same uid may be on its way out.
pub const CNI_REFUSED: Duration = Duration::from_secs(2);
/// The plugin waits this long for the holder to hear that a pod leaves.
pub const CNI_DEPART: Duration = Duration::from_secs(1);
/// Pods that wait at once: kubelet starts ten or so at a time.
pub const CNI_WAITING: usize = 256;
/// Announced pods whose networks are remembered: several times those of a full node.
pub const CNI_NETWORKS: usize = 4_096;
/// Connections of plugins at once: one for each pod that waits.
pub const CNI_PLUGINS: usize = CNI_WAITING;
/// Connections that wait to be accepted by the holder: all that it would take, for with the node everything starts at once.
pub const HOLDER_BACKLOG: i32 = (CNI_PLUGINS + HANDOVER_PROXIES) as i32;
/// Bytes of a network configuration.
pub const CNI_CONFIG_BYTES: u64 = 1 << 20;
/// Files in the directory of network configurations that are looked at.
pub const CNI_CONFIGS: usize = 64;
/// How late the end of a wait may be noticed.
pub const CNI_LOOK: Duration = Duration::from_millis(250);
/// How often the chain is looked at without being told that it changed.
pub const CNI_RECHECK: Duration = Duration::from_secs(10);
/// Names in one message about pods that are not captured: 253 bytes each at most, a quarter of a message.
pub const EXPECT_NAMES: usize = 64;
/// Pods that one proxy may name as not captured: several times those of a full node. A longer word is not taken.
pub const EXPECT_PODS: usize = CNI_NETWORKS;
/// Meshed namespaces that one proxy may name: Kubernetes is tested with 10,000. A longer word is not taken.
pub const EXPECT_NAMESPACES: usize = 16_384;
/// Bytes of one netlink datagram: the kernel sends at most 32 KiB at once.
pub const NETLINK_BYTES: usize = 32 * 1024;

/// A captured pod that control does not name is released after this: two replicas of control hear of a new pod at different moments, and
/// another proxy of this node may serve it already.
pub const UNNAMED: Duration = Duration::from_secs(5);
/// How often a leaving worker looks whether its connections are over.
pub const DRAIN_LOOK: Duration = Duration::from_millis(20);

// ---- configuration ----

/// Destinations that this node has in use at a time.
pub const DESTINATIONS: usize = 16_384;
/// How long a connection waits for control to name its destination.
pub const RESOLVE_WAIT: Duration = Duration::from_secs(3);
/// A destination nobody dialled for this long is given up.
pub const DESTINATION_IDLE: Duration = Duration::from_secs(600);
/// How often idle destinations are looked for.
pub const DESTINATION_SWEEP: Duration = Duration::from_secs(60);
/// Messages waiting for the stream to control: subscriptions beyond it are refused, and asked for again.
pub const CONTROL_QUEUE: usize = 1_024;
/// Bytes of one message from control: a full resume of a large node.
pub const CONTROL_MESSAGE: usize = 64 * 1024 * 1024;
/// TCP and TLS with control.
pub const CONTROL_CONNECT: Duration = Duration::from_secs(3);
/// Endpoints of one report, those that are out first: 250 KB, so that what `weir` takes in one answer holds those of a thousand nodes.
pub const ENDPOINTS_REPORTED: usize = 1_000;
/// Endpoints that control hears are out, for events: more at once is the cluster's trouble, and `weir stat endpoints` shows it.
pub const OUT_ENDPOINTS: usize = 100;
/// How often they are looked at: the shortest time out of Linkerd's is a second.
pub const OUT_LOOK: Duration = Duration::from_secs(1);
/// First pause after the stream to control ended; doubles up to the next.
pub const CONTROL_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause before control is tried again.
pub const CONTROL_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Changes within this time are written to disk once.
pub const STATE_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of a vault: what a full node remembers.
pub const VAULT_BYTES: u64 = 256 * 1024 * 1024;

// ---- identities ----

/// Part of a certificate's life after which it is renewed, before jitter.
pub const RENEW_AT: f64 = 0.7;
/// Jitter around it, so that the workloads of a node do not renew at once.
pub const RENEW_JITTER: f64 = 0.05;
/// After a change of the issuer each identity is renewed at a random moment within so long: a thousand nodes of twenty identities then
/// ask for 700 certificates a second, which one core of control signs.
pub const RENEW_ISSUER_WITHIN: Duration = Duration::from_secs(30);
/// How long a certificate stays that no workload has any more: connections that arrive until the kernel brings none to the proxy
/// any more are secured as those before, which takes well under a second.
pub const IDENTITY_GRACE: Duration = Duration::from_secs(10);
/// First pause after control refused a certificate or was away; doubles up to the next.
pub const CERTIFY_PAUSE_MIN: Duration = Duration::from_millis(200);
/// Longest pause between two tries for a certificate.
pub const CERTIFY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// One request for a certificate.
pub const CERTIFY_TIMEOUT: Duration = Duration::from_secs(10);
/// Certificates in a chain that control sends.
pub const CHAIN: usize = 8;
/// What the task of one connection may hold inline while it is idle: part of the 10 KiB that it may cost in all.
pub const CONNECTION_FUTURE_BYTES: usize = 640;
