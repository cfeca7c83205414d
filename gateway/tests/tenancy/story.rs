//! A deployment in a folder of its own, with a clock that the test moves.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    encoding::AsDer,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use domain::{
    Services, apps,
    clock::Clock,
    credential::{AdminKey, Principal, SecretKey},
    error::Error,
    keys, organizations, random,
    schema::Scope,
    token_keys, users,
};
use fanout::bus::Local;
use gateway::auth::{Authenticator, TokenRefused, Verified};
use jsonwebtoken::{EncodingKey, Header};
use protocol::{
    AppId, ErrorCode, Limits, OrganizationId, TokenKeyId, UserId,
    entity::{Algorithm, Environment, Key},
    operation::{
        app::{CreateApp, UpdateApp, UpdateAppSettings},
        credential::{CreateAppKey, CreateTokenKey},
        organization::CreateOrganization,
        user::PutUser,
    },
};
use serde_json::{Value, json};
use store::{Keep, Store, embedded::Embedded};
use tempfile::TempDir;

pub(crate) const ADMIN: &str = "adm_0123456789abcdefghijklmnopqrstuvwxyz";

pub(crate) struct Deployment {
    pub(crate) services: Services,
    pub(crate) auth: Authenticator,
    pub(crate) store: Arc<dyn Store>,
    _folder: TempDir,
}

/// An organization with an app.
pub(crate) struct Tenant {
    pub(crate) organization: OrganizationId,
    pub(crate) organization_key: Key,
    pub(crate) app: AppId,
}

/// A token key with its signing secret.
pub(crate) struct Signer {
    pub(crate) id: TokenKeyId,
    pub(crate) algorithm: jsonwebtoken::Algorithm,
    pub(crate) key: EncodingKey,
    /// The shared secret or the PEM.
    pub(crate) known: String,
}

impl Deployment {
    pub(crate) fn start() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        Self::keeping(
            limits,
            Keep {
                events: 0,
                bytes: 0,
            },
        )
    }

    pub(crate) fn keeping(limits: Limits, keep: Keep) -> Self {
        let folder = TempDir::new().unwrap();
        let store: Arc<dyn Store> =
            Arc::new(Embedded::open(folder.path(), keep, Local::new(Arc::new(()))).unwrap());
        let (services, auth) = node(&store, limits);
        Self {
            services,
            auth,
            store,
            _folder: folder,
        }
    }

    /// Returns another node on the same store, with its own clock.
    pub(crate) fn another_node(&self) -> (Services, Authenticator) {
        node(&self.store, (*self.services.limits).clone())
    }

    /// Returns the deployment's time in seconds.
    pub(crate) fn now(&self) -> u64 {
        self.services.clock.now_ms() / 1000
    }

    pub(crate) fn later(&self, by: Duration) {
        self.services.clock.advance(by);
    }

    pub(crate) async fn tenant(&self, name: &str) -> Tenant {
        let body = CreateOrganization {
            name: name.into(),
            email: "a@example.org".into(),
            banner: None,
        };
        let created = organizations::create_organization(
            &self.services,
            &Principal::Admin,
            body,
            random::bits(),
        )
        .await
        .unwrap()
        .value;
        let organization = created.organization.id;
        let app = self.app(&organization, "app").await;
        Tenant {
            organization,
            organization_key: created.key,
            app,
        }
    }

    pub(crate) async fn app(&self, organization: &OrganizationId, name: &str) -> AppId {
        let body = CreateApp {
            name: name.into(),
            settings: Default::default(),
        };
        apps::create_app(
            &self.services,
            &Principal::Admin,
            organization,
            body,
            random::bits(),
        )
        .await
        .unwrap()
        .value
        .id
    }

    pub(crate) async fn app_key(&self, tenant: &Tenant, environment: Environment) -> Key {
        let body = CreateAppKey {
            environment,
            name: None,
        };
        keys::create_app_key(
            &self.services,
            &Principal::Admin,
            &tenant.organization,
            &tenant.app,
            body,
            random::bits(),
        )
        .await
        .unwrap()
    }

    /// Returns the backend of a tenant's app.
    pub(crate) async fn backend(&self, tenant: &Tenant, environment: Environment) -> Principal {
        let key = self.app_key(tenant, environment).await;
        self.auth.authenticate(secret(&key)).await.unwrap()
    }

    pub(crate) async fn user(&self, backend: &Principal, id: &str) -> UserId {
        let body = PutUser {
            id: Some(id.parse().unwrap()),
            ..PutUser::default()
        };
        users::create_user(&self.services, backend.actor().unwrap(), body)
            .await
            .unwrap()
            .value
            .id
    }

    pub(crate) async fn signer(&self, tenant: &Tenant, algorithm: Algorithm) -> Signer {
        self.signer_in(tenant, algorithm, Environment::Live).await
    }

    pub(crate) async fn signer_in(
        &self,
        tenant: &Tenant,
        algorithm: Algorithm,
        environment: Environment,
    ) -> Signer {
        let pem = |der: &[u8]| pem::encode(&pem::Pem::new("PUBLIC KEY", der));
        let (jwt, pair) = match algorithm {
            Algorithm::HS256 => (jsonwebtoken::Algorithm::HS256, None),
            Algorithm::EdDSA => {
                let pair = Ed25519KeyPair::generate().unwrap();
                let key = EncodingKey::from_ed_der(pair.to_pkcs8().unwrap().as_ref());
                (
                    jsonwebtoken::Algorithm::EdDSA,
                    Some((pem(pair.public_key().as_der().unwrap().as_ref()), key)),
                )
            }
            Algorithm::ES256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
                let key = EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref());
                (
                    jsonwebtoken::Algorithm::ES256,
                    Some((pem(pair.public_key().as_der().unwrap().as_ref()), key)),
                )
            }
            Algorithm::RS256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
                let private = pem::encode(&pem::Pem::new(
                    "PRIVATE KEY",
                    pair.as_der().unwrap().as_ref(),
                ));
                let key = EncodingKey::from_rsa_pem(private.as_bytes()).unwrap();
                (
                    jsonwebtoken::Algorithm::RS256,
                    Some((pem(pair.public_key().as_der().unwrap().as_ref()), key)),
                )
            }
        };
        let public_key = pair.as_ref().map(|(pem, _)| pem.clone());
        let body = CreateTokenKey {
            environment,
            algorithm,
            public_key,
        };
        let made = token_keys::create_token_key(
            &self.services,
            &Principal::Admin,
            &tenant.organization,
            &tenant.app,
            body,
            random::bits(),
        )
        .await
        .unwrap();
        let (known, key) = match pair {
            Some(pair) => {
                assert_eq!(made.secret, None);
                pair
            }
            None => {
                let secret = made.secret.unwrap();
                let key = EncodingKey::from_secret(secret.as_bytes());
                (secret, key)
            }
        };
        Signer {
            id: made.id,
            algorithm: jwt,
            key,
            known,
        }
    }

    /// Returns the claims of a valid token for this user.
    pub(crate) fn claims(&self, user: &str) -> Value {
        json!({ "sub": user, "iat": self.now(), "exp": self.now() + 600 })
    }

    /// Makes an app refuse unknown users.
    pub(crate) async fn make_no_users(&self, tenant: &Tenant) {
        let settings = Some(UpdateAppSettings {
            create_users_from_tokens: Some(false),
        });
        let patch = UpdateApp {
            name: None,
            settings,
        };
        apps::update_app(
            &self.services,
            &Principal::Admin,
            &tenant.organization,
            &tenant.app,
            patch,
            None,
        )
        .await
        .unwrap();
    }
}

fn node(store: &Arc<dyn Store>, limits: Limits) -> (Services, Authenticator) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64;
    let mut services = Services::new(store.clone(), limits, SecretKey::new([7; 32]), "node");
    services.clock = Arc::new(Clock::manual(now));
    let auth = Authenticator::new(services.clone(), AdminKey::new(ADMIN));
    (services, auth)
}

impl Signer {
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = Header {
            kid: Some(self.id.to_string()),
            ..Header::new(self.algorithm)
        };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

pub(crate) fn secret(key: &Key) -> &str {
    key.secret.as_deref().unwrap()
}

pub(crate) fn scope(tenant: &Tenant, environment: Environment) -> Scope {
    Scope {
        app: tenant.app.clone(),
        environment,
    }
}

/// Returns the sentence of a refusal that is neither an expiry nor an outage.
pub(crate) fn sentence(result: Result<Verified, TokenRefused>) -> String {
    match result {
        Err(TokenRefused::Other(sentence)) => sentence,
        other => panic!("not refused as it should be: {other:?}"),
    }
}

pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorCode {
    result.unwrap_err().code()
}
