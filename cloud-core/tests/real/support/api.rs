//! The API of a rig, with a token for each role.

use cloud_core::access::Role;
use cloud_core::access::secret::{Kind, Secret};
use cloud_core::api::guard::Route;
use cloud_core::api::{self, Api, ApiConfig, Stores};
use cloud_core::deadletter::replay::Replayer;
use cloud_core::failpoint::Failpoints;
use cloud_core::query::Queries;
use cloud_core::rollup::RollupConfig;
use cloud_core::store::access::{AccessStore, TokenEntry};
use cloud_core::store::rollup::RollupStore;
use penstock_common::schema::SchemaSet;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Rig, http};

pub(crate) struct TestApi {
    pub(crate) base: String,
    /// Of the role admin.
    pub(crate) token: String,
    pub(crate) routes: Vec<Route>,
    access: AccessStore,
    stop: CancellationToken,
}

impl TestApi {
    pub(crate) async fn start(rig: &Rig, replayer: Option<Replayer>) -> Self {
        let config = ApiConfig {
            requests_per_second: 1e6,
            requests_burst: 1_000_000,
            ..ApiConfig::default()
        };
        Self::with(rig, replayer, &config).await
    }

    pub(crate) async fn with(rig: &Rig, replayer: Option<Replayer>, config: &ApiConfig) -> Self {
        let rollups =
            RollupStore::open(&RollupConfig::default(), &rig.database.dsn, Failpoints::default())
                .unwrap();
        rollups.migrate().await.unwrap();
        let stores = Stores {
            queries: Queries::new(rig.catalog.clone(), rig.objects.clone()),
            catalog: rig.catalog.clone(),
            rollups,
        };
        let mut api = Api::new(stores, &SchemaSet::baked().unwrap(), config);
        if let Some(replayer) = replayer {
            api = api.with_replays(replayer);
        }
        let (router, routes) = api.router();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = listener.local_addr().unwrap().to_string();
        let stop = CancellationToken::new();
        tokio::spawn(api::serve(listener, router, stop.clone()));
        let access = AccessStore::new(rig.catalog.pool().clone());
        let mut api = Self { base, token: String::new(), routes, access, stop };
        api.token = api.token_of(Role::Admin, None).await;
        api
    }

    /// A new token; `expires_at` in µs since the Unix epoch.
    pub(crate) async fn token_of(&self, role: Role, expires_at: Option<i64>) -> String {
        token(&self.access, role, expires_at).await
    }

    pub(crate) const fn access(&self) -> &AccessStore {
        &self.access
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let (status, body) = http::get_as(&self.base, &self.token, path).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    pub(crate) async fn post(&self, path: &str, json: &Value) -> (u16, Value) {
        let authorization = format!("Bearer {}", self.token);
        let headers =
            [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
        let answer = http::call(&self.base, "POST", path, &headers, &json.to_string()).await;
        (answer.status, serde_json::from_str(&answer.body).unwrap())
    }
}

impl Drop for TestApi {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A new token; `expires_at` in µs since the Unix epoch.
pub(crate) async fn token(access: &AccessStore, role: Role, expires_at: Option<i64>) -> String {
    let secret = Secret::random(Kind::Token);
    let token = TokenEntry {
        token_id: Uuid::new_v4(),
        name: format!("test-{role}"),
        role: role.to_string(),
        created_at: 0,
        expires_at,
        revoked_at: None,
    };
    access.create_token(&token, &secret.hash(), "a test").await.unwrap();
    secret.reveal().to_owned()
}
