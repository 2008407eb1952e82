//! The members of one etcd cluster: asks one, and the next one when it does not answer.

use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::time::{sleep, timeout};
use tonic::{
    Request, Status,
    client::Grpc,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};
use tonic_prost::ProstCodec;

use super::{
    failure::{Connection, Failure},
    settings::{EtcdSettings, User},
    wire::{AuthenticateRequest, AuthenticateResponse, RangeRequest, RangeResponse},
};
use crate::domain::problem::Problem;

/// How long connecting to one member may take.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one answer of a member may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest answer that is read, in bytes.
const MESSAGE_MAX: usize = 64 * 1_024 * 1_024;

/// How often all members are asked before the command gives up, and the pause between.
const ROUNDS: usize = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// The most members that one message names.
const NAMED_MAX: usize = 5;

const RANGE: &str = "/etcdserverpb.KV/Range";
const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

#[derive(Debug)]
struct Member {
    address: String,
    grpc: Grpc<Channel>,
}

/// The members of one etcd cluster.
#[derive(Debug)]
pub(super) struct Members {
    all: Vec<Member>,
    /// The member that is asked first: the one that answered last.
    current: usize,
    user: Option<User>,
    has_identity: bool,
    token: Option<MetadataValue<Ascii>>,
    /// The id of the cluster that answered first.
    cluster: Option<u64>,
}

/// The answer to a range request, or the fact that it is too large for one message.
pub(super) enum Ranged {
    /// The answer.
    Answer(RangeResponse),
    /// The answer does not fit into one message.
    TooLarge,
}

impl Members {
    /// Makes the members. Does not connect.
    ///
    /// # Errors
    /// When an address or a file of TLS is not valid.
    pub(super) fn new(settings: EtcdSettings) -> Result<Self, Problem> {
        let members = settings.channels()?.into_iter().map(|(address, channel)| Member {
            address,
            grpc: Grpc::new(channel).max_decoding_message_size(MESSAGE_MAX),
        });
        Ok(Self {
            all: members.collect(),
            current: 0,
            has_identity: settings.identity.is_some(),
            user: settings.user,
            token: None,
            cluster: None,
        })
    }

    /// Returns the address of the member that answered last.
    pub(super) fn address(&self) -> &str {
        self.all.get(self.current).map_or("", |member| &member.address)
    }

    /// Asks for a range. Asks each member up to three times.
    ///
    /// # Errors
    /// `etcd-unreachable` when no member answers, `etcd-other-cluster` when a member belongs to
    /// another cluster than the one before, and the errors that no other member can change.
    pub(super) async fn range(&mut self, request: &RangeRequest) -> Result<Ranged, Problem> {
        let mut failed: Vec<(usize, String, String)> = Vec::new();
        for round in 0..ROUNDS {
            if round > 0 {
                sleep(PAUSE).await;
            }
            failed.clear();
            for _ in 0..self.all.len() {
                match self.ask(request).await {
                    Ok(answer) => return self.checked(answer).map(Ranged::Answer),
                    Err(Failure::TooLarge) => return Ok(Ranged::TooLarge),
                    Err(Failure::Final(problem)) => return Err(problem),
                    Err(Failure::TokenExpired) => failed.push((
                        self.current,
                        "it refuses the token that it gave".to_owned(),
                        "check that the clocks of the members agree".to_owned(),
                    )),
                    Err(Failure::OfThisMember { cause, remedy }) => {
                        failed.push((self.current, cause, remedy));
                    }
                }
                self.current = (self.current + 1) % self.all.len();
            }
        }
        Err(self.unreachable(&failed))
    }

    fn checked(&mut self, answer: RangeResponse) -> Result<RangeResponse, Problem> {
        let cluster = answer.header.as_ref().map_or(0, |header| header.cluster);
        if *self.cluster.get_or_insert(cluster) == cluster {
            return Ok(answer);
        }
        Err(Problem::new(
            "etcd-other-cluster",
            format!("{} belongs to another etcd cluster than the member before", self.address()),
            "give the members of one cluster with --etcd-servers",
        ))
    }

    fn unreachable(&self, failed: &[(usize, String, String)]) -> Problem {
        let address = |index: usize| self.all.get(index).map_or("", |member| &member.address);
        let named: Vec<_> = failed
            .iter()
            .take(NAMED_MAX)
            .map(|(index, cause, _)| format!("{}: {cause}", address(*index)))
            .collect();
        let mut remedies: Vec<&str> = Vec::new();
        for (_, _, remedy) in failed.iter().take(NAMED_MAX) {
            if !remedies.contains(&remedy.as_str()) {
                remedies.push(remedy);
            }
        }
        let count =
            if failed.len() > 1 { "no etcd server answers" } else { "etcd does not answer" };
        let cause = format!("{count}: {}", named.join("; "));
        Problem::new("etcd-unreachable", cause, remedies.join("; or "))
    }

    /// Asks the current member once, and once more when its token has expired.
    async fn ask(&mut self, request: &RangeRequest) -> Result<RangeResponse, Failure> {
        self.authenticate().await?;
        match self.ask_once(request).await {
            Err(Failure::TokenExpired) => {
                self.token = None;
                self.authenticate().await?;
                self.ask_once(request).await
            }
            done => done,
        }
    }

    async fn ask_once(&mut self, request: &RangeRequest) -> Result<RangeResponse, Failure> {
        let mut request = Request::new(request.clone());
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        self.call(RANGE, request).await
    }

    /// Gets a token, if a user is given and there is none.
    async fn authenticate(&mut self) -> Result<(), Failure> {
        let Some(user) = self.user.as_ref().filter(|_| self.token.is_none()) else {
            return Ok(());
        };
        let request = AuthenticateRequest {
            name: user.name.clone(),
            password: user.password.expose().to_owned(),
        };
        let answer: AuthenticateResponse = self.call(AUTHENTICATE, Request::new(request)).await?;
        self.token = answer.token.parse().ok();
        Ok(())
    }

    async fn call<Q, A>(&mut self, path: &'static str, request: Request<Q>) -> Result<A, Failure>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let (has_identity, has_user) = (self.has_identity, self.user.is_some());
        let Some(member) = self.all.get_mut(self.current) else {
            return Err(Failure::timed_out(0));
        };
        let is_https = member.address.starts_with("https:");
        let asked = async {
            member.grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
            let path = PathAndQuery::from_static(path);
            member.grpc.unary(request, path, ProstCodec::<Q, A>::default()).await
        };
        match timeout(REQUEST_TIMEOUT, asked).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => {
                Err(Failure::of(&status, Connection { is_https, has_identity, has_user }))
            }
            Err(_late) => Err(Failure::timed_out(REQUEST_TIMEOUT.as_secs())),
        }
    }
}
