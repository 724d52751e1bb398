//! Edges and the requests that they send, beside projectors that answer as each test says.

use parking_lot::Mutex;
use receipts_cluster::{ASK_PATH, PeerReply, PeerRequest, PeerSettings, PeerState, Peers, Question};
use receipts_query::{Answer, Answers as _, Conversation, Positions, Unavailable};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

const PARTITIONS: u32 = 8;
/// Longer than any exchange here, and shorter than a test may take.
const LONG: Duration = Duration::from_secs(20);

type Reply = Box<dyn Fn(&PeerRequest) -> PeerReply + Send + Sync>;

/// A projector that reports this state, and notes the requests that it is sent.
struct Projector {
    address: SocketAddr,
    state: Mutex<PeerState>,
    heard: Mutex<Vec<PeerRequest>>,
    reply: Mutex<Reply>,
}

impl Projector {
    /// Starts a projector of these partitions, which has folded nothing of them and answers every
    /// question with `false`, from the position that it is asked for.
    async fn start(partitions: &[u32]) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let state = PeerState {
            advertise: None,
            partition_count: PARTITIONS,
            standby: false,
            positions: Positions::new(),
            partitions: partitions.to_vec(),
            stale: Vec::new(),
            cursor_key: None,
            log: None,
        };
        let projector = Arc::new(Self {
            address: listener.local_addr().expect("bound"),
            state: Mutex::new(state),
            heard: Mutex::default(),
            reply: Mutex::new(Box::new(|request| Ok(Answer::fresh(json!(false), request.min.clone())))),
        });
        let serving = Arc::clone(&projector);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&serving).serve(stream));
            }
        });
        projector
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        loop {
            let (mut head, mut length) = (String::new(), 0);
            while !head.ends_with("\r\n\r\n") {
                let from = head.len();
                if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                    return;
                }
                if let Some(bytes) = head[from..].to_ascii_lowercase().strip_prefix("content-length:") {
                    length = bytes.trim().parse().expect("a length");
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.expect("the whole body");
            let answer = if head.starts_with(&format!("POST {ASK_PATH} ")) {
                let request: PeerRequest = serde_json::from_slice(&body).expect("a request");
                let reply = (self.reply.lock())(&request);
                self.heard.lock().push(request);
                json!(reply)
            } else {
                json!(*self.state.lock())
            };
            let answer = answer.to_string();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
            stream.write_all(answer.as_bytes()).await.expect("the edge reads");
        }
    }

    fn replies(&self, reply: impl Fn(&PeerRequest) -> PeerReply + Send + Sync + 'static) {
        *self.reply.lock() = Box::new(reply);
    }

    /// The requests since the last call: the question's partition or "position", and the positions.
    fn heard(&self) -> Vec<(bool, Vec<(u32, u64)>)> {
        let heard = std::mem::take(&mut *self.heard.lock());
        let mut heard: Vec<_> = heard
            .iter()
            .map(|request| (request.question == Question::Position, request.min.iter().collect()))
            .collect();
        heard.sort();
        heard
    }
}

async fn peers(projectors: &[&Arc<Projector>]) -> Peers {
    let settings = PeerSettings {
        projectors: projectors.iter().map(|projector| projector.address.to_string()).collect(),
        poll_interval: Duration::from_millis(20),
        secret: None,
        candidates_max: 100,
    };
    // It has asked every projector for its state then.
    Peers::find(settings).await.expect("projectors of one log")
}

fn about(partition: u32) -> Conversation<'static> {
    Conversation { partition, tenant: "default", conversation_id: "g" }
}

fn of(positions: &[(u32, u64)]) -> Positions {
    positions.iter().copied().collect()
}

/// INV-POSITION
#[tokio::test]
async fn read_with_a_position_is_one_exchange() {
    let owner = Projector::start(&[0, 1]).await;
    let peers = peers(&[&owner]).await;
    let waiting = peers.after(&of(&[(1, 7)]), LONG).expect("nobody has folded it");
    assert!(!waiting.is_member(about(1), "bob").await.expect("an answer").value);
    assert_eq!(owner.heard(), [(false, vec![(1, 7)])]);
    // From now on every answer of this edge covers it, and nobody has to wait.
    assert!(peers.after(&of(&[(1, 7)]), LONG).is_none());
    peers.wait(&of(&[(1, 7)]), Duration::ZERO).await.expect("folded");
    assert!(!peers.is_member(about(1), "bob").await.expect("an answer").value);
    assert_eq!(owner.heard(), [(false, vec![(1, 7)])]);
}

/// INV-TOKEN
#[tokio::test]
async fn ends_cost_each_projector_one_exchange() {
    let (first, second) = (Projector::start(&[0, 1, 2]).await, Projector::start(&[3]).await);
    first.state.lock().positions = of(&[(0, 9)]);
    let peers = peers(&[&first, &second]).await;
    for projector in [&first, &second] {
        projector.replies(|request| {
            let Question::Ends { most } = &request.question else { panic!("{request:?}") };
            let ends: Positions = most.iter().map(|(partition, most)| (partition, most.min(5))).collect();
            Ok(Answer::fresh(json!(ends), Positions::new()))
        });
    }
    let ends = peers.ends(&of(&[(0, 9), (1, 7), (2, 3), (3, 8)])).await.expect("ends");
    assert_eq!(ends, of(&[(0, 9), (1, 5), (2, 3), (3, 5)]));
    assert_eq!((first.heard().len(), second.heard().len()), (1, 1));
    // What is folded needs no question.
    assert_eq!(peers.ends(&of(&[(0, 9)])).await, Ok(of(&[(0, 9)])));
    assert!(first.heard().is_empty());
}

#[tokio::test]
async fn position_beyond_the_end_is_refused_at_once() {
    let owner = Projector::start(&[0]).await;
    owner.replies(|_| Err(Unavailable::Behind));
    let peers = peers(&[&owner]).await;
    let waiting = peers.after(&of(&[(0, 7)]), LONG).expect("nobody has folded it");
    let refused = tokio::time::timeout(LONG / 2, waiting.is_member(about(0), "bob")).await.expect("at once");
    assert_eq!(refused, Err(Unavailable::Behind));
    assert_eq!(owner.heard().len(), 1, "it is not asked again");
    owner.replies(|request| Ok(Answer::fresh(json!(false), request.min.clone())));
    assert!(!peers.is_member(about(0), "bob").await.expect("an answer").value);
    assert_eq!(owner.heard(), [(false, vec![])], "the refused position binds no other caller");
}

/// INV-POSITION
#[tokio::test]
async fn partitions_of_one_token_share_their_exchanges() {
    let (first, second) = (Projector::start(&[0, 1, 2]).await, Projector::start(&[3, 4, 5]).await);
    // It is folded, but not known to be so by all holders.
    second.state.lock().positions = of(&[(5, 9)]);
    let peers = peers(&[&first, &second]).await;
    let token = of(&[(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6)]);
    peers.after(&token, LONG).expect("not folded").is_member(about(0), "bob").await.expect("an answer");
    assert_eq!(first.heard(), [(false, vec![(0, 1)]), (true, vec![(1, 2), (2, 3)])]);
    assert_eq!(second.heard(), [(true, vec![(3, 4), (4, 5)])]);
    peers.is_member(about(5), "bob").await.expect("an answer");
    assert_eq!(second.heard(), [(false, vec![(5, 6)])], "answers cover what the reports cover");
    let later = of(&[(0, 2), (1, 3), (3, 5)]);
    peers.wait(&later, LONG).await.expect("folded");
    assert_eq!((first.heard(), second.heard()), (vec![(true, vec![(0, 2), (1, 3)])], vec![(true, vec![(3, 5)])]));
}

/// INV-POSITION
#[tokio::test]
async fn partition_that_moves_during_the_wait_is_followed() {
    let (old, new) = (Projector::start(&[0]).await, Projector::start(&[1]).await);
    let peers = peers(&[&old, &new]).await;
    let moved = (Arc::clone(&old), Arc::clone(&new));
    old.replies(move |_| {
        moved.0.state.lock().partitions.clear();
        moved.1.state.lock().partitions = vec![0, 1];
        Err(Unavailable::NoOwner { partition: 0 })
    });
    let waiting = peers.after(&of(&[(0, 7)]), LONG).expect("not folded");
    assert_eq!(waiting.is_member(about(0), "bob").await.expect("an answer").positions, of(&[(0, 7)]));
    assert!(!old.heard().is_empty());
    assert_eq!(new.heard(), [(false, vec![(0, 7)])]);
}

#[tokio::test]
async fn wait_of_zero_asks_each_holder_once() {
    let (owner, standby) = (Projector::start(&[0]).await, Projector::start(&[0]).await);
    standby.state.lock().standby = true;
    let peers = peers(&[&owner, &standby]).await;
    for projector in [&owner, &standby] {
        projector.replies(|_| Err(Unavailable::Behind));
    }
    let waiting = peers.after(&of(&[(0, 7)]), Duration::ZERO).expect("not folded");
    assert_eq!(waiting.is_member(about(0), "bob").await, Err(Unavailable::Behind));
    assert_eq!((owner.heard().len(), standby.heard().len()), (1, 1));
    standby.replies(|request| Ok(Answer::fresh(json!(true), request.min.clone())));
    let waiting = peers.after(&of(&[(0, 7)]), Duration::ZERO).expect("not folded");
    assert!(waiting.is_member(about(0), "bob").await.expect("the standby has it").value);
}

/// Questions about a partition that nobody holds read the table twice, while polls write it: in a
/// deadlock the whole edge would stand still, so the runtime is not the test's own.
#[test]
fn polls_and_questions_without_owner_go_on() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let owner = Projector::start(&[0]).await;
            let peers = Arc::new(peers(&[&owner]).await);
            let asking = (0..200).map(|_| {
                let peers = Arc::clone(&peers);
                tokio::spawn(async move { peers.is_member(about(5), "bob").await })
            });
            for asked in asking.collect::<Vec<_>>() {
                assert_eq!(asked.await.expect("no panic"), Err(Unavailable::NoOwner { partition: 5 }));
            }
        });
        done.send(()).expect("it waits");
    });
    is_done.recv_timeout(LONG).expect("the edge stands still");
}
