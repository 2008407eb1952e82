use std::{
    collections::{BTreeMap, VecDeque},
    sync::Mutex,
};

use async_trait::async_trait;

use super::*;
use crate::{
    domain::{
        resource::ResourceName,
        rewrite::{Demand, Tally},
    },
    ports::rewriting::Page,
};

/// An API server in memory. An object is in an old form if its key id is not the present one.
#[derive(Debug, Default)]
struct Server {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The key id and the version of each object.
    objects: BTreeMap<String, (u32, u64)>,
    key_id: u32,
    revision: u64,
    /// These come before the real answers: of lists and of patches.
    lists: VecDeque<Refusal>,
    patches: VecDeque<Refusal>,
    /// The key rotates after this number of patches.
    rotates_after: Option<u32>,
    /// Others write before each patch.
    is_raced: bool,
    patched: u32,
    is_ready: bool,
}

impl Server {
    fn with(objects: u32, change: impl FnOnce(&mut State)) -> Self {
        let mut state = State { key_id: 2, revision: 100, is_ready: true, ..State::default() };
        for number in 0..objects {
            state.objects.insert(format!("s{number:03}"), (1, u64::from(number)));
        }
        change(&mut state);
        Self { state: Mutex::new(state) }
    }

    fn key_ids(&self) -> Vec<u32> {
        let state = self.state.lock().unwrap();
        let mut ids: Vec<_> = state.objects.values().map(|(id, _)| *id).collect();
        ids.dedup();
        ids
    }
}

impl State {
    fn write(&mut self, name: &str) -> String {
        self.revision += 1;
        self.objects.insert(name.to_owned(), (self.key_id, self.revision));
        self.revision.to_string()
    }
}

#[async_trait]
impl Left for Server {
    async fn page(&self, _: &Resource, _: &Scope, after: Option<&str>) -> Result<Page, Refusal> {
        let mut state = self.state.lock().unwrap();
        if let Some(refusal) = state.lists.pop_front() {
            return Err(refusal);
        }
        let all = state.objects.iter().filter(|(name, _)| after.is_none_or(|a| a < name.as_str()));
        let objects: Vec<_> = all
            .take(10)
            .map(|(name, (_, version))| Listed {
                namespace: None,
                name: name.clone(),
                version: version.to_string(),
            })
            .collect();
        let next = (objects.len() == 10).then(|| objects.last().unwrap().name.clone());
        Ok(Page { objects, next, remaining: None })
    }
}

#[async_trait]
impl Storage for Server {
    fn name(&self) -> String {
        "https://localhost:6443".to_owned()
    }

    async fn resource(&self, _: &ResourceName) -> Result<Resource, Refusal> {
        Err(Refusal::Gone)
    }

    async fn store(&self, _: &Resource, object: &Listed) -> Result<String, Refusal> {
        let mut state = self.state.lock().unwrap();
        if let Some(refusal) = state.patches.pop_front() {
            return Err(refusal);
        }
        if state.is_raced {
            state.write(&object.name);
        }
        state.patched += 1;
        if state.rotates_after == Some(state.patched) {
            state.key_id += 1;
        }
        let Some((key_id, version)) = state.objects.get(&object.name).copied() else {
            return Err(Refusal::Gone);
        };
        if version.to_string() != object.version {
            return Err(Refusal::Changed);
        }
        if key_id == state.key_id {
            return Ok(object.version.clone());
        }
        Ok(state.write(&object.name))
    }

    async fn version(&self, _: &Resource, object: &Listed) -> Result<String, Refusal> {
        let state = self.state.lock().unwrap();
        state.objects.get(&object.name).map(|(_, version)| version.to_string()).ok_or(Refusal::Gone)
    }

    async fn is_ready(&self) -> bool {
        self.state.lock().unwrap().is_ready
    }
}

struct Silent;

impl Progress for Silent {
    fn page_done(&self, _: &Run, _: Option<u64>) -> Result<(), Problem> {
        Ok(())
    }

    fn object_done(&self) {}

    fn waits(&self, _: Option<&str>) {}
}

/// Drives a run over the server to its end.
async fn driven(server: &Server) -> (Run, Result<Ending, Problem>) {
    let name = ResourceName::parse("secrets").unwrap();
    let mut run = Run::new(Demand {
        server: server.name(),
        resources: vec![name.to_string()],
        namespace: None,
        selector: None,
        until_key_id: None,
        dry_run: false,
    });
    let driver = Driver {
        left: server,
        storage: server,
        progress: &Silent,
        resources: &[Resource { name, version: "v1".to_owned(), is_namespaced: true }],
        scope: &Scope::default(),
        limits: Limits { interval: Duration::from_millis(20), parallel: 4 },
        patience: Patience::new(server, &Silent, Duration::from_mins(1)),
    };
    let ending = driver.drive(&mut run).await;
    (run, ending)
}

fn tally(run: &Run) -> Tally {
    *run.tallies().next().unwrap().1
}

#[tokio::test(start_paused = true)]
async fn writes_each_object_once_and_proves_it_by_a_second_pass() {
    let server = Server::with(25, |_| ());
    let began = tokio::time::Instant::now();
    let (run, ending) = driven(&server).await;
    assert_eq!(ending, Ok(Ending::Proven));
    assert_eq!(run.pass, 2);
    assert_eq!(tally(&run), Tally { objects: 25, rewritten: 25, fresh: 25, ..Tally::default() });
    assert_eq!(server.key_ids(), [2]);
    // 50 objects, one each 20 ms.
    assert!(began.elapsed() >= Duration::from_millis(20 * 44), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn finds_the_objects_of_a_rotation_in_its_middle() {
    let server = Server::with(25, |state| state.rotates_after = Some(12));
    let (run, ending) = driven(&server).await;
    assert_eq!(ending, Ok(Ending::Proven));
    assert_eq!(run.pass, 3);
    assert_eq!(server.key_ids(), [3]);
}

#[tokio::test(start_paused = true)]
async fn other_writers_do_not_keep_it_from_ending() {
    let server = Server::with(5, |state| state.is_raced = true);
    let (run, ending) = driven(&server).await;
    assert_eq!(ending, Ok(Ending::Proven));
    assert_eq!(tally(&run), Tally { objects: 5, by_others: 5, ..Tally::default() });
}

#[tokio::test(start_paused = true)]
async fn waits_for_an_api_server_that_restarts() {
    let server = Server::with(5, |state| {
        for _ in 0..6 {
            state.lists.push_back(Refusal::Unavailable("connection refused".to_owned()));
            state.patches.push_back(Refusal::Unavailable("503".to_owned()));
        }
        state.patches.push_back(Refusal::Busy(Duration::from_secs(20)));
    });
    assert_eq!(driven(&server).await.1, Ok(Ending::Proven));
    assert_eq!(server.key_ids(), [2]);
}

#[tokio::test(start_paused = true)]
async fn patience_has_an_end() {
    let server = Server::with(5, |state| {
        state.lists = vec![Refusal::Unavailable("connection refused".to_owned()); 1000].into();
    });
    let began = tokio::time::Instant::now();
    let problem = driven(&server).await.1.unwrap_err();
    assert_eq!(problem.code, "api-server-unavailable");
    assert!(problem.cause.contains("connection refused"), "{problem}");
    assert!(began.elapsed() <= Duration::from_secs(61));
}

#[tokio::test(start_paused = true)]
async fn an_internal_error_is_the_objects_only_if_the_api_server_is_ready() {
    let internal = || vec![Refusal::Internal("500".to_owned()); 1000].into();
    let server = Server::with(1, |state| state.patches = internal());
    let (run, ending) = driven(&server).await;
    assert_eq!(ending, Ok(Ending::Failed));
    assert_eq!(run.failures.len(), 1);
    let server = Server::with(1, |state| {
        state.patches = internal();
        state.is_ready = false;
    });
    assert_eq!(driven(&server).await.1.unwrap_err().code, "api-server-unavailable");
}

#[tokio::test(start_paused = true)]
async fn a_refused_object_does_not_stop_the_rest() {
    let server = Server::with(25, |state| {
        state.patches.push_back(Refusal::Rejected("the webhook w denies it".to_owned()));
    });
    let (run, ending) = driven(&server).await;
    // The second pass had success with it, and the third one proves that.
    assert_eq!((ending, run.pass), (Ok(Ending::Proven), 3));
    assert_eq!(server.key_ids(), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_right_may_be_missing_for_a_moment_after_a_restart_only() {
    let forbidden = || Refusal::Forbidden("patch secrets".to_owned());
    let server = Server::with(5, |state| state.patches.push_back(forbidden()));
    assert_eq!(driven(&server).await.1, Ok(Ending::Proven));
    let server = Server::with(5, |state| state.patches = vec![forbidden(); 1000].into());
    assert_eq!(driven(&server).await.1.unwrap_err().code, "forbidden");
    let server = Server::with(5, |state| state.lists.push_back(forbidden()));
    let began = tokio::time::Instant::now();
    assert_eq!(driven(&server).await.1.unwrap_err().code, "forbidden");
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn some_refusals_stop_all_work() {
    for (refusal, code) in [
        (Refusal::Full, "etcd-full"),
        (Refusal::Unauthenticated, "unauthenticated"),
        (Refusal::Misunderstood("patch secrets".to_owned()), "not-a-kube-apiserver"),
    ] {
        let server = Server::with(5, |state| state.patches.push_back(refusal));
        assert_eq!(driven(&server).await.1.unwrap_err().code, code);
    }
}

#[tokio::test(start_paused = true)]
async fn goes_on_where_a_position_has_expired() {
    let server = Server::with(25, |state| {
        state.lists.push_back(Refusal::Expired { again: Some("s004".to_owned()) });
    });
    let (_, ending) = driven(&server).await;
    // The second pass finds the objects before that position.
    assert_eq!(ending, Ok(Ending::Proven));
    assert_eq!(server.key_ids(), [2]);
    let server = Server::with(25, |state| {
        state.lists = vec![Refusal::Expired { again: None }; 3].into();
    });
    assert_eq!(driven(&server).await.1, Ok(Ending::Proven));
    let server = Server::with(25, |state| {
        state.lists = vec![Refusal::Expired { again: None }; 1000].into();
    });
    assert_eq!(driven(&server).await.1.unwrap_err().code, "list-refused");
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_object_is_named() {
    let lost = Refusal::Unreadable("/registry/secrets/default/lost".to_owned());
    let server = Server::with(5, |state| state.lists = vec![lost; 5].into());
    let (run, ending) = driven(&server).await;
    assert_eq!(ending, Ok(Ending::Failed));
    assert!(run.failures[0].why.contains("/registry/secrets/default/lost"), "{:?}", run.failures);
}

#[tokio::test(start_paused = true)]
async fn an_etcd_without_the_objects_proves_nothing() {
    use crate::domain::{place::DEFAULT_PREFIX, stored::Stored, tally::Tally as InEtcd};
    let name = ResourceName::parse("ingresses.networking.k8s.io").unwrap();
    let resources = [Resource { name, version: "v1".to_owned(), is_namespaced: true }];
    let compared = async |server: Server, key: &str| {
        let mut tally = InEtcd::default();
        tally.add(key.as_bytes(), DEFAULT_PREFIX, &Stored::Clear, 1).unwrap();
        let patience = Patience::new(&server, &Silent, Duration::from_mins(1));
        compare(&server, &patience, &resources, &Scope::default(), &tally).await
    };
    let elsewhere = "/registry/pods/default/a";
    let problem = compared(Server::with(1, |_| ()), elsewhere).await.unwrap_err();
    assert_eq!(problem.code, "not-in-etcd");
    assert!(problem.cause.contains("ingresses.networking.k8s.io"), "{problem}");
    let unreadable = |state: &mut State| state.lists.push_back(Refusal::Unreadable("a".into()));
    let problem = compared(Server::with(0, unreadable), elsewhere).await.unwrap_err();
    assert_eq!(problem.code, "not-in-etcd");
    assert_eq!(compared(Server::with(0, |_| ()), elsewhere).await, Ok(()));
    assert_eq!(compared(Server::with(1, |_| ()), "/registry/ingress/default/a").await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_etcd_refuses_ends_with_the_error_of_etcd() {
    let problem = |code| Problem::new(code, "the cause", "ask etcd");
    let server = Server::with(1, |state| {
        state.lists.push_back(Refusal::NotRead(problem("etcd-compacted")));
        state.lists.push_back(Refusal::NotRead(problem("etcd-unreachable")));
    });
    assert_eq!(driven(&server).await.1, Ok(Ending::Proven), "these may pass");
    let began = tokio::time::Instant::now();
    let denied = Refusal::NotRead(problem("etcd-access"));
    let server = Server::with(1, |state| state.lists.push_back(denied));
    assert_eq!(driven(&server).await.1, Err(problem("etcd-access")));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let away = || Refusal::NotRead(problem("etcd-unreachable"));
    let server = Server::with(1, |state| state.lists.extend((0..1_000).map(|_| away())));
    assert_eq!(driven(&server).await.1, Err(problem("etcd-unreachable")));
}
