//! Bounds of the control plane, each with its reason. Must never hold a number without one.

use std::time::Duration;

// watch, parse

/// One manifest file: an export of a whole large namespace is a tenth of it; more is a mistake.
pub const MANIFEST_BYTES: u64 = 16 * 1024 * 1024;
/// Folders in folders: manifests are kept flat or one folder per namespace.
pub const MANIFEST_DEPTH: usize = 8;
/// Quiet time after a change on disk, so that a file that is being written is read once and whole.
pub const DEBOUNCE: Duration = Duration::from_millis(100);
/// Longest wait for quiet: a folder that never rests is read anyway.
pub const DEBOUNCE_LONGEST: Duration = Duration::from_secs(1);
/// Re-scan without an event: notifications get lost on network file systems and when the kernel's queue overflows.
pub const RESCAN: Duration = Duration::from_secs(5);
/// A file this young may change again within the clock tick of its modification time, so it is read again.
pub const MTIME_UNSURE: Duration = Duration::from_secs(2);
/// Findings kept per file: enough to fix, not enough to fill memory.
pub const FINDINGS_PER_FILE: usize = 100;
/// Bytes of a foreign value that a finding quotes.
pub const QUOTED_BYTES: usize = 120;

// stream

/// Connected nodes: the design's target (1,000) and as many again during a replacement of all.
pub const NODES: usize = 2_000;
/// Destinations that one node may have in use: 10,000 services with some ports each, and as many pods.
pub const DESTINATIONS_PER_NODE: usize = 50_000;
/// Resources that a node may name as known in its `Hello`: what it can hold at all.
pub const KNOWN_PER_NODE: usize = weir_core::limits::RESOURCES;
/// Updates sent and not yet acknowledged: two keep the pipe full, more would only age in a slow node's queue.
pub const UPDATES_IN_FLIGHT: usize = 2;
/// Resources of one update.
pub const RESOURCES_PER_UPDATE: usize = 500;
/// Encoded bytes of one Server's authorizations: past it, further ones let nobody in.
pub const SERVER_BYTES: usize = 4 * 1024 * 1024;
/// What a field of a message takes beside its content, at most.
pub const FIELD_BYTES: usize = 16;
/// Networks of one policy object, and exceptions of each: what people write by hand, and what clouds publish as theirs.
pub const NETWORKS_PER_POLICY: usize = 4_096;
/// Identities of one policy object: a namespace of a thousand teams is named by its namespace.
pub const IDENTITIES_PER_POLICY: usize = 4_096;
/// A SPIFFE id (SPIFFE-ID 2.3).
pub const SPIFFE_BYTES: usize = 2_048;
/// Encoded bytes of one resource: of more the node keeps its last good version. With an update's own bound well below what nodes take of one message.
pub const RESOURCE_BYTES: usize = 16 * 1024 * 1024;
/// Encoded bytes after which an update is closed: a quarter of gRPC's usual message limit.
pub const UPDATE_BYTES: usize = 1024 * 1024;
/// Messages between a node's session and its connection: updates in flight and queries.
pub const SESSION_QUEUE: usize = 16;
/// Queries that wait for one node: more than this many `weir stat` at a time only queue up.
pub const QUERIES_PER_NODE: usize = 8;
/// A node that does not acknowledge for so long is cut off; it reconnects and resumes.
pub const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(30);
/// `Hello` must come at once after the stream opens.
pub const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// One message of a node: a report of 250 workloads with a hundred peers each.
pub const NODE_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// Time between the news that a pod is no longer meshed and its removal from its node: peers must have stopped sending it mTLS.
pub const UNMESH_GRACE: Duration = Duration::from_millis(750);
/// Statuses kept per node: workloads that a kubelet can run, several times over.
pub const STATUSES_PER_NODE: usize = 4_096;
/// Refusals of resources kept per node, for `weir check`.
pub const REJECTIONS_PER_NODE: usize = 64;

// certificates

/// One certificate request: a P-256 CSR with two names is 400 bytes.
pub const CSR_BYTES: usize = 4_096;
/// Requests of one node at once: twice the pods that a kubelet runs, for a node that restarts.
pub const CERTIFY_BURST: f64 = 500.0;
/// Requests of one node per second in the long run: 250 pods that renew 24 h certificates need one in five minutes.
pub const CERTIFY_PER_SECOND: f64 = 10.0;
/// Backdating, for nodes whose clock is behind (Linkerd's allowance).
pub const CLOCK_SKEW: Duration = Duration::from_secs(20);
/// Life of a self-made trust anchor.
pub const ANCHOR_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Life of a self-made issuer.
pub const ISSUER_LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// A self-made issuer with less than this left is replaced.
pub const ISSUER_RENEWAL: Duration = Duration::from_secs(60 * 86_400);
/// Nodes renew within so long of a change of the issuer (their `RENEW_ISSUER_WITHIN`): each at a moment of its own, or a thousand
/// of them would ask at once.
pub const RENEWED_WITHIN: Duration = Duration::from_secs(30);
/// How often the CA's files are looked at for changes.
pub const CA_RESCAN: Duration = Duration::from_secs(1);
/// A file of certificates or a key.
pub const PEM_BYTES: u64 = 256 * 1024;

// serving

/// TLS handshakes in progress: all nodes reconnect after a restart of control.
pub const HANDSHAKES: usize = 256;
/// A handshake takes milliseconds; a silent client does not keep its place.
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Connections that wait for the gRPC server after their handshake.
pub const ACCEPTED_QUEUE: usize = 64;
/// Streams of one connection: a node has one stream and certificate requests beside it.
pub const STREAMS_PER_CONNECTION: u32 = 256;
/// Ping interval and timeout on idle connections: a dead node is noticed within half a minute.
pub const KEEPALIVE: Duration = Duration::from_secs(15);
/// How long control serves on after it was told to end, where nodes have nobody else: a successor starts within seconds, and kubelet
/// kills after 30 s (`terminationGracePeriodSeconds` of the chart).
pub const LEAVING: Duration = Duration::from_secs(20);
/// How long a successor must be ready before nodes are sent to it: kube-proxy hears of it up to half a second later than control does.
pub const SUCCESSION: Duration = Duration::from_secs(1);
/// How often control that is about to end looks whether it may, where nothing else makes it.
pub const LEAVING_LOOK: Duration = Duration::from_millis(250);
/// Time that open calls have to end when control stops.
pub const SHUTDOWN: Duration = Duration::from_secs(3);
/// Token file: 32 random bytes in hexadecimal, with room.
pub const TOKEN_BYTES: u64 = 4_096;
/// How often token files are read again.
pub const TOKEN_RESCAN: Duration = Duration::from_secs(2);
/// Connections of the admin server.
pub const ADMIN_CONNECTIONS: usize = 32;
/// Time that one admin request may take.
pub const ADMIN_WITHIN: Duration = Duration::from_secs(10);
/// Objects named in one finding of `weir check`: a screen or two; the next look shows what is left.
pub const NAMED_PER_CHECK: usize = 100;
/// Questions about a Service's routes at a time: each compiles them, which takes seconds of a processor for the largest that are taken.
pub const EXPLANATIONS: usize = 2;
/// Matches of which one answer says why they lost: a screen has fifty.
pub const EXPLAINED_MATCHES: usize = 500;
/// Routes that one answer names which were not asked, or that it shows of a Service.
pub const EXPLAINED_ROUTES: usize = 200;
/// Ports of a Service that one answer shows: all of its routes are gone through for each.
pub const SHOWN_PORTS: usize = 16;
/// Refused routes that one answer names which may be a Service's.
pub const SHOWN_REFUSED: usize = 20;
/// Rules that one answer shows: with Gateway API's greatest ones, some megabytes.
pub const SHOWN_RULES: usize = 500;
/// Bytes of a request that is asked about, its header included: what nodes take of one.
pub const EXPLAINED_BYTES: usize = 64 * 1024;
/// Objects of one call that writes them: each is three questions to the API server, one after the other.
pub const APPLIED_OBJECTS: usize = 100;
/// Calls that write at a time: each is a connection to the API server.
pub const WRITERS: usize = 16;
/// Groups that a caller acts as: each is a header.
pub const ACTING_GROUPS: usize = 64;
/// A log filter: some targets of a program.
pub const LOG_FILTER_BYTES: usize = 4_096;
/// Nodes whose log levels one call names.
pub const LOG_LEVEL_NODES: usize = NODES;
/// Items of one list: a page of them is some hundred kilobytes, and some megabytes of Services with many rules.
pub const LISTED_ITEMS: usize = 500;
/// Encoded bytes after which a page of a list ends: with its last item it stays within gRPC's usual 4 MiB, but for a Service with the largest routes.
pub const LISTED_BYTES: usize = 1024 * 1024;
/// Services that are worked out while the index is held: some tens of microseconds each, as a rule.
pub const SERVICES_AT_ONCE: usize = 50;
/// Routes, the same.
pub const ROUTES_AT_ONCE: usize = 200;
/// Other items, of which there is nothing to work out.
pub const ITEMS_AT_ONCE: usize = 1_000;
/// Watches of the mesh API at a time: dashboards and controllers of a team, each with its own lists to compare.
pub const WATCHES: usize = 32;
/// Items of one watch: ten thousand pods and as many again; of each a key and a hash are kept.
pub const WATCHED_ITEMS: usize = 20_000;
/// Encoded bytes of the items of one watch, all of which are in memory while they are compared.
pub const WATCHED_BYTES: usize = 64 * 1024 * 1024;
/// Events of one watch that wait for its reader: it is read on, and looked at again, when they are taken.
pub const WATCH_QUEUE: usize = 64;
/// Least time between two looks of one watch at what control itself knows.
pub const WATCH_PAUSE: Duration = Duration::from_secs(1);
/// The same at what nodes say, for which all replicas are asked: it is looked at as often without news, which others' nodes do not bring.
pub const WATCH_NODES_PAUSE: Duration = Duration::from_secs(2);
/// Observations at a time: each holds the reports of all nodes in memory.
pub const OBSERVATIONS: usize = 8;
/// Time that nodes have to answer a query; `weir` shows who did not.
pub const QUERY_WITHIN: Duration = Duration::from_secs(2);
/// Longest window of a query, seconds (the contract's).
pub const WINDOW_SECONDS: u32 = 300;
/// Shortest token: half of what `openssl rand -hex 16` prints; an empty file must not let everybody in.
pub const TOKEN_LEAST: usize = 16;

// replicas

/// Other replicas that one asks: three are usual, and the chart takes no more than 15.
pub const REPLICAS: usize = 16;
/// Questions to all others at a time, each a TLS handshake with each of them; whoever comes then waits.
pub const GATHERINGS: usize = 16;
/// A replica has this long to say what it knows, its own nodes' answers included: well below what `weir` waits for.
pub const SHARE_WITHIN: Duration = Duration::from_secs(4);
/// What one replica says: reports of its nodes, 16 MiB each at most (`weir` takes as much from all of them).
pub const SHARE_BYTES: usize = 256 * 1024 * 1024;

// API server

/// Objects of one page of a first list: a page of pods is some megabytes, and is the most that is held of Kubernetes' own types.
pub const LIST_PAGE: u32 = 250;
/// News of watches that wait for the index, and are taken at once: the watches wait while it is full.
pub const WATCHED_QUEUE: usize = 1_024;
/// Findings kept of one object of the API server: when they are mended, the others are found.
pub const FINDINGS_PER_OBJECT: usize = 20;
/// Findings kept of the whole cluster: enough to fix, not enough to fill memory.
pub const FINDINGS_IN_CLUSTER: usize = 1_000;
/// One call to the API server: it answers in milliseconds, or something is wrong.
pub const API_WITHIN: Duration = Duration::from_secs(5);
/// The API server ends a watch after so long, seconds, and it is taken up again where it was: one that stays open for five seconds
/// more is on a dead connection.
pub const WATCH_SECONDS: u32 = 30;
/// Longest silence of the API server inside one answer: longer than a watch without news, so that only a dead connection reaches it.
pub const API_SILENCE: Duration = Duration::from_secs(40);
/// Pause after a first failure; it doubles with each further one.
pub const API_PAUSE_FIRST: Duration = Duration::from_millis(200);
/// Longest pause: an API server that is back is used within so long.
pub const API_PAUSE_LONGEST: Duration = Duration::from_secs(10);
/// Pause before a kind is looked for again that the API server does not know: its definition may be installed later.
pub const API_ABSENT: Duration = Duration::from_secs(5);
/// After so long without a failure, pauses begin small again.
pub const API_CALM: Duration = Duration::from_secs(60);
/// Tokens that are asked about at a time: all nodes reconnect after a restart of control.
pub const REVIEWS_AT_ONCE: usize = 32;
/// Answers about tokens kept: every node's, its successor's, and some people's.
pub const REVIEWS_KEPT: usize = 2 * NODES;
/// How long the API server's word for a token is believed: a token that was taken back is of use for so long at most.
pub const REVIEW_KEPT: Duration = Duration::from_secs(60);
/// How long its refusal is believed: a caller that tries again and again costs one question in so long.
pub const REFUSED_REVIEW_KEPT: Duration = Duration::from_secs(5);
/// A service account's token is one kilobyte.
pub const REVIEWED_TOKEN_BYTES: usize = 16 * 1024;
/// Life of the status writer's lease (client-go's default).
pub const LEASE: Duration = Duration::from_secs(15);
/// The writer stops writing when it could not renew for so long; a write in flight then still ends before another may lead.
pub const LEASE_RENEW_WITHIN: Duration = Duration::from_secs(10);
/// How often the lease is renewed, or looked at (client-go's default).
pub const LEASE_RETRY: Duration = Duration::from_secs(2);
/// Notices that wait to become events: two per pod of the largest node at once.
pub const NOTICES_QUEUE: usize = 1_024;
/// Events at once: a namespace of some hundred pods that is opted in.
pub const EVENTS_BURST: f64 = 300.0;
/// Events per second in the long run (what client-go lets a component write is less).
pub const EVENTS_PER_SECOND: f64 = 10.0;
/// Zones, and nodes, of the hints of one endpoint: what Kubernetes' validation lets through.
pub const HINTS: usize = 8;
/// Endpoints that one node may have taken out at a time (its `OUT_ENDPOINTS`): with the other nodes' some megabytes.
pub const OUT_PER_NODE: usize = 100;
/// Bytes of a Service's namespace and name, or of a uid, that a node says is out: Kubernetes' names have at most 63 and 253.
pub const OUT_NAME_BYTES: usize = 320;
/// A node that is not heard of for so long does not keep requests from anybody any more, as far as news go.
pub const OUT_NODE_GONE: Duration = Duration::from_secs(60);
/// Events at once on one pod that breakers take out and let in again: two times out and back are told as they are seen.
pub const EJECTIONS_BURST: f64 = 4.0;
/// The same per second in the long run, a minute each: one that goes in and out for hours, at however many nodes, is told of no more often.
pub const EJECTIONS_PER_SECOND: f64 = 1.0 / 60.0;
/// Events of pods that are out or back from one look: what is written until the next, two seconds later at the earliest; the others are told then.
pub const EJECTIONS_PER_LOOK: usize = 20;
/// Pods that were told of as out lately: past this many, further ones are told of when others are back.
pub const EJECTED_PODS: usize = 10_000;
/// Names of events that were written, so as not to write them again.
pub const EVENTS_REMEMBERED: usize = 4_096;
/// What the API server takes as an event's note.
pub const EVENT_NOTE_BYTES: usize = 1_024;
/// Pods that one refused certificate is noted on: they share a service account on one node.
pub const PODS_PER_REFUSAL: usize = 8;
/// Conditions of pods that are set at a time.
pub const CONDITIONS_AT_ONCE: usize = 16;
/// A condition that was set and that the watch does not show after so long is set again.
pub const CONDITION_RETRY: Duration = Duration::from_secs(5);
/// Least time between two looks at all pods: 100,000 of them cost milliseconds.
pub const PODS_PAUSE: Duration = Duration::from_millis(100);
/// The longest time limit of a request: a longer one refuses its route, and is none of a Service.
pub const TIMEOUT: Duration = Duration::from_secs(365 * 86_400);
/// How often one request of a ServiceProfile's retryable route is sent again: its budget ends that among many requests, and this of one alone, with
/// the pauses between in some three seconds.
pub const PROFILE_RETRIES: u32 = 10;
/// Backends of one TrafficSplit, and `dstOverrides` of one ServiceProfile, each of whose rules repeats them: Gateway API takes 16 of a rule.
pub const OVERRIDES: usize = 128;
/// Name of one route of a ServiceProfile: a label of metrics. Linkerd's own are methods and paths.
pub const PROFILE_ROUTE_NAME: usize = 256;
/// The status of each route is read again so often: somebody else may have changed it.
pub const ROUTES_RESCAN: Duration = Duration::from_secs(60);
/// Look at all pods without an event: certificates become late by time alone.
pub const PODS_RESCAN: Duration = Duration::from_secs(5);
/// A captured pod has its certificate a second later; after so long people should look.
pub const CERTIFICATE_WITHIN: Duration = Duration::from_secs(10);
/// Nodes renew at seven tenths of a certificate's life: one with less than this part (a tenth) left is late.
pub const CERTIFICATE_LATE_PART: u32 = 10;
/// What control writes for others and does not watch, trust anchors and status, is there again so long after somebody changed it.
pub const RESTORED_WITHIN: Duration = Duration::from_secs(60);
/// Least time between two writes of the status.
pub const STATUS_PAUSE: Duration = Duration::from_secs(2);
/// Look at the status without an event.
pub const STATUS_RESCAN: Duration = Duration::from_secs(10);
/// Below this, a given issuer should have been replaced.
pub const ISSUER_ENDING: Duration = Duration::from_secs(7 * 86_400);
/// How often a self-made issuer is looked at for its end.
pub const ISSUER_RESCAN: Duration = Duration::from_secs(3_600);
