//! Keys of organizations and apps, access keys, and the keys that verify user tokens.

use super::{
    Body, Caller, Http, Operation, described,
    empty::{Empty, NoInput},
    page::{List, ListPage},
    path::{AppKeyPath, AppPath, OrganizationKeyPath, OrganizationPath, TokenKeyPath},
};
use crate::{
    entity::{Algorithm, Environment, Key, TokenKey},
    wire::wire,
};

described! {
    /// Creates an organization key
    ///
    /// The response shows its secret, once.
    pub struct OrganizationKeyCreate;

    /// Lists an organization's keys
    pub struct OrganizationKeyList;

    /// Revokes an organization key
    pub struct OrganizationKeyRevoke;

    /// Creates an app key
    ///
    /// The response shows its secret, once.
    pub struct AppKeyCreate;

    /// Lists an app's keys
    ///
    /// Access keys that have not expired are included.
    pub struct AppKeyList;

    /// Revokes an app key or access key
    pub struct AppKeyRevoke;

    /// Creates an access key
    ///
    /// It has the permissions of an app key for `expires_in` seconds: at most and by default 3600.
    /// The response shows its secret, once.
    pub struct AccessKeyCreate;

    /// Creates a token key
    ///
    /// With HS256 the response shows its secret, once. With the other algorithms the customer
    /// provides the public key.
    pub struct TokenKeyCreate;

    /// Lists an app's token keys
    pub struct TokenKeyList;

    /// Revokes a token key
    ///
    /// Its tokens are refused and their sessions close.
    pub struct TokenKeyRevoke;
}

impl Operation for OrganizationKeyCreate {
    const NAME: &'static str = "organization_key.create";
    const CALLERS: &'static [Caller] = Caller::OWNERS;
    const HTTP: Option<Http> = Some(
        Http::post(
            "/v1/organizations/{org}/keys",
            &[(201, "The new key with its secret")],
        )
        .body(Body::Optional),
    );
    type Path = OrganizationPath;
    type Input = CreateOrganizationKey;
    type Output = Key;

    fn example() -> CreateOrganizationKey {
        CreateOrganizationKey {
            name: Some("backend".to_owned()),
        }
    }
}

wire! {
    /// `POST …/organizations/{org}/keys`.
    #[derive(Default)]
    pub struct CreateOrganizationKey {
        /// Name: a single line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
    }
}

impl Operation for OrganizationKeyList {
    const NAME: &'static str = "organization_key.list";
    const CALLERS: &'static [Caller] = Caller::OWNERS;
    const HTTP: Option<Http> = Some(Http::get(
        "/v1/organizations/{org}/keys",
        &[(200, "A page without secrets, by id")],
    ));
    type Path = OrganizationPath;
    type Input = ListPage;
    type Output = List<Key>;

    fn example() -> ListPage {
        ListPage::default()
    }
}

impl Operation for OrganizationKeyRevoke {
    const NAME: &'static str = "organization_key.revoke";
    const CALLERS: &'static [Caller] = Caller::OWNERS;
    const HTTP: Option<Http> = Some(Http::delete(
        "/v1/organizations/{org}/keys/{key}",
        &[(204, "It is refused from now on")],
    ));
    type Path = OrganizationKeyPath;
    type Input = NoInput;
    type Output = Empty;

    fn example() -> NoInput {
        NoInput {}
    }
}

impl Operation for AppKeyCreate {
    const NAME: &'static str = "app_key.create";
    const CALLERS: &'static [Caller] = Caller::OWNERS;
    const HTTP: Option<Http> = Some(Http::post(
        "/v1/organizations/{org}/apps/{app}/keys",
        &[(201, "The new key with its secret")],
    ));
    type Path = AppPath;
    type Input = CreateAppKey;
    type Output = Key;

    fn example() -> CreateAppKey {
        CreateAppKey {
            environment: Environment::Live,
            name: Some("backend".to_owned()),
        }
    }
}

wire! {
    /// `POST …/apps/{app}/keys`.
    pub struct CreateAppKey {
        /// Environment that it gives access to.
        pub environment: Environment,
        /// Name: a single line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
    }
}

impl Operation for AppKeyList {
    const NAME: &'static str = "app_key.list";
    const CALLERS: &'static [Caller] = Caller::OWNERS;
    const HTTP: Option<Http> = Some(Http::get(
        "/v1/organizations/{org}/apps/{app}/keys",
        &[(200, "A page without secrets, by id")],
    ));
    type Path = AppPath;
    type Input = ListPage;
    type Output = List<Key>;

    fn example() -> ListPage {
        ListPage::default()
    }
}

impl Operation for AppKeyRevoke {
    const NAME: &'static str = "app_key.revoke";
    const CALLERS: &'static [Caller] = Caller::OWNERS;
    const HTTP: Option<Http> = Some(Http::delete(
        "/v1/organizations/{org}/apps/{app}/keys/{key}",
        &[(204, "It is refused from now on")],
    ));
    type Path = AppKeyPath;
    type Input = NoInput;
    type Output = Empty;

    fn example() -> NoInput {
        NoInput {}
    }
}

impl Operation for AccessKeyCreate {
    const NAME: &'static str = "access_key.create";
    const CALLERS: &'static [Caller] = Caller::OWNERS;
    const HTTP: Option<Http> = Some(Http::post(
        "/v1/organizations/{org}/apps/{app}/access",
        &[(201, "The new key with its secret")],
    ));
    type Path = AppPath;
    type Input = CreateAccess;
    type Output = Key;

    fn example() -> CreateAccess {
        CreateAccess {
            environment: Environment::Test,
            expires_in: Some(600),
        }
    }
}

wire! {
    /// `POST …/apps/{app}/access`.
    pub struct CreateAccess {
        /// Environment that it gives access to.
        pub environment: Environment,
        /// Validity in seconds; default 3600.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub expires_in: Option<u64>,
    }
}

impl Operation for TokenKeyCreate {
    const NAME: &'static str = "token_key.create";
    const CALLERS: &'static [Caller] = Caller::OWNERS;
    const HTTP: Option<Http> = Some(Http::post(
        "/v1/organizations/{org}/apps/{app}/token-keys",
        &[(201, "The new token key")],
    ));
    type Path = AppPath;
    type Input = CreateTokenKey;
    type Output = TokenKey;

    fn example() -> CreateTokenKey {
        CreateTokenKey {
            environment: Environment::Live,
            algorithm: Algorithm::HS256,
            public_key: None,
        }
    }
}

wire! {
    /// `POST …/apps/{app}/token-keys`.
    pub struct CreateTokenKey {
        /// Environment of its users.
        pub environment: Environment,
        /// The only algorithm that is accepted with this key.
        pub algorithm: Algorithm,
        /// Public key as PEM (SPKI); required unless the algorithm is HS256.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub public_key: Option<String>,
    }
}

impl Operation for TokenKeyList {
    const NAME: &'static str = "token_key.list";
    const CALLERS: &'static [Caller] = Caller::OWNERS;
    const HTTP: Option<Http> = Some(Http::get(
        "/v1/organizations/{org}/apps/{app}/token-keys",
        &[(200, "A page without secrets, by id")],
    ));
    type Path = AppPath;
    type Input = ListPage;
    type Output = List<TokenKey>;

    fn example() -> ListPage {
        ListPage::default()
    }
}

impl Operation for TokenKeyRevoke {
    const NAME: &'static str = "token_key.revoke";
    const CALLERS: &'static [Caller] = Caller::OWNERS;
    const HTTP: Option<Http> = Some(Http::delete(
        "/v1/organizations/{org}/apps/{app}/token-keys/{key}",
        &[(204, "It is refused from now on")],
    ));
    type Path = TokenKeyPath;
    type Input = NoInput;
    type Output = Empty;

    fn example() -> NoInput {
        NoInput {}
    }
}
