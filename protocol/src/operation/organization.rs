//! Organizations.

use super::{
    Caller, Conditions, Http, Operation, described,
    empty::{Empty, NoInput},
    page::{List, ListPage},
    path::{NoPath, OrganizationPath},
};
use crate::{
    Patch,
    entity::{Key, Organization},
    wire::wire,
};

described! {
    /// Creates an organization
    ///
    /// The response shows the secret of its first key, once.
    pub struct OrganizationCreate;

    /// Lists organizations
    pub struct OrganizationList;

    /// Reads an organization
    pub struct OrganizationRead;

    /// Changes an organization
    pub struct OrganizationUpdate;

    /// Deletes an organization
    ///
    /// With its apps and everything in them.
    pub struct OrganizationDelete;
}

impl Operation for OrganizationCreate {
    const NAME: &'static str = "organization.create";
    const CALLERS: &'static [Caller] = &[Caller::Admin];
    const HTTP: Option<Http> = Some(Http::post(
        "/v1/organizations",
        &[(201, "The new organization and its first key")],
    ));
    type Path = NoPath;
    type Input = CreateOrganization;
    type Output = OrganizationCreated;

    fn example() -> CreateOrganization {
        CreateOrganization {
            name: "Example".to_owned(),
            email: "team@example.org".to_owned(),
            banner: None,
        }
    }
}

wire! {
    /// `POST /v1/organizations`.
    pub struct CreateOrganization {
        /// Single line that is not blank.
        pub name: String,
        /// E-mail address for contact.
        pub email: String,
        /// http or https URL of a picture.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub banner: Option<String>,
    }

    /// Result of `POST /v1/organizations`.
    pub struct OrganizationCreated {
        /// The new organization.
        pub organization: Organization,
        /// Its first key.
        pub key: Key,
    }
}

impl Operation for OrganizationList {
    const NAME: &'static str = "organization.list";
    const CALLERS: &'static [Caller] = &[Caller::Admin];
    const HTTP: Option<Http> = Some(Http::get("/v1/organizations", &[(200, "A page, by id")]));
    type Path = NoPath;
    type Input = ListPage;
    type Output = List<Organization>;

    fn example() -> ListPage {
        ListPage::default()
    }
}

impl Operation for OrganizationRead {
    const NAME: &'static str = "organization.read";
    const CALLERS: &'static [Caller] = Caller::OWNERS;
    const HTTP: Option<Http> = Some(
        Http::get("/v1/organizations/{org}", &[(200, "The organization")])
            .conditions(Conditions::Read),
    );
    type Path = OrganizationPath;
    type Input = NoInput;
    type Output = Organization;

    fn example() -> NoInput {
        NoInput {}
    }
}

impl Operation for OrganizationUpdate {
    const NAME: &'static str = "organization.update";
    const CALLERS: &'static [Caller] = Caller::OWNERS;
    const HTTP: Option<Http> = Some(
        Http::patch(
            "/v1/organizations/{org}",
            &[(200, "The changed organization")],
        )
        .conditions(Conditions::Write),
    );
    type Path = OrganizationPath;
    type Input = UpdateOrganization;
    type Output = Organization;

    fn example() -> UpdateOrganization {
        UpdateOrganization {
            name: Some("Example & Co".to_owned()),
            ..UpdateOrganization::default()
        }
    }
}

wire! {
    /// `PATCH /v1/organizations/{org}`: a merge patch.
    #[derive(Default)]
    pub struct UpdateOrganization {
        /// Single line that is not blank.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
        /// E-mail address for contact.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub email: Option<String>,
        /// http or https URL of a picture.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        pub banner: Patch<String>,
    }
}

impl Operation for OrganizationDelete {
    const NAME: &'static str = "organization.delete";
    const CALLERS: &'static [Caller] = Caller::OWNERS;
    const HTTP: Option<Http> = Some(
        Http::delete("/v1/organizations/{org}", &[(204, "It is deleted")])
            .conditions(Conditions::Write),
    );
    type Path = OrganizationPath;
    type Input = NoInput;
    type Output = Empty;

    fn example() -> NoInput {
        NoInput {}
    }
}
