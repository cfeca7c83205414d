//! Apps of an organization.

use super::{
    Caller, Conditions, Http, Operation, described,
    empty::{Empty, NoInput},
    page::{List, ListPage},
    path::{AppPath, OrganizationPath},
};
use crate::{
    entity::{App, AppSettings},
    wire::wire,
};

described! {
    /// Creates an app
    pub struct AppCreate;

    /// Lists an organization's apps
    pub struct AppList;

    /// Reads an app
    pub struct AppRead;

    /// Changes an app
    pub struct AppUpdate;

    /// Deletes an app
    ///
    /// With its users, channels and messages, in both environments.
    pub struct AppDelete;
}

impl Operation for AppCreate {
    const NAME: &'static str = "app.create";
    const CALLERS: &'static [Caller] = Caller::OWNERS;
    const HTTP: Option<Http> = Some(Http::post(
        "/v1/organizations/{org}/apps",
        &[(201, "The new app")],
    ));
    type Path = OrganizationPath;
    type Input = CreateApp;
    type Output = App;

    fn example() -> CreateApp {
        CreateApp {
            name: "Shop".to_owned(),
            settings: AppSettings::default(),
        }
    }
}

wire! {
    /// `POST …/apps`.
    pub struct CreateApp {
        /// Single line that is not blank.
        pub name: String,
        /// Settings of the app.
        #[serde(default)]
        pub settings: AppSettings,
    }
}

impl Operation for AppList {
    const NAME: &'static str = "app.list";
    const CALLERS: &'static [Caller] = Caller::OWNERS;
    const HTTP: Option<Http> = Some(Http::get(
        "/v1/organizations/{org}/apps",
        &[(200, "A page, by id")],
    ));
    type Path = OrganizationPath;
    type Input = ListPage;
    type Output = List<App>;

    fn example() -> ListPage {
        ListPage::default()
    }
}

impl Operation for AppRead {
    const NAME: &'static str = "app.read";
    const CALLERS: &'static [Caller] = Caller::OWNERS;
    const HTTP: Option<Http> = Some(
        Http::get("/v1/organizations/{org}/apps/{app}", &[(200, "The app")])
            .conditions(Conditions::Read),
    );
    type Path = AppPath;
    type Input = NoInput;
    type Output = App;

    fn example() -> NoInput {
        NoInput {}
    }
}

impl Operation for AppUpdate {
    const NAME: &'static str = "app.update";
    const CALLERS: &'static [Caller] = Caller::OWNERS;
    const HTTP: Option<Http> = Some(
        Http::patch(
            "/v1/organizations/{org}/apps/{app}",
            &[(200, "The changed app")],
        )
        .conditions(Conditions::Write),
    );
    type Path = AppPath;
    type Input = UpdateApp;
    type Output = App;

    fn example() -> UpdateApp {
        UpdateApp {
            settings: Some(UpdateAppSettings {
                create_users_from_tokens: Some(false),
            }),
            ..UpdateApp::default()
        }
    }
}

wire! {
    /// `PATCH …/apps/{app}`: a merge patch.
    #[derive(Default)]
    pub struct UpdateApp {
        /// Single line that is not blank.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
        /// Settings to change.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub settings: Option<UpdateAppSettings>,
    }

    /// A merge patch of an app's settings.
    #[derive(Default)]
    pub struct UpdateAppSettings {
        /// Whether a valid token of an unknown user creates that user.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub create_users_from_tokens: Option<bool>,
    }
}

impl Operation for AppDelete {
    const NAME: &'static str = "app.delete";
    const CALLERS: &'static [Caller] = Caller::OWNERS;
    const HTTP: Option<Http> = Some(
        Http::delete(
            "/v1/organizations/{org}/apps/{app}",
            &[(204, "It is deleted")],
        )
        .conditions(Conditions::Write),
    );
    type Path = AppPath;
    type Input = NoInput;
    type Output = Empty;

    fn example() -> NoInput {
        NoInput {}
    }
}
