//! Deleted organizations and apps.

use super::*;
use domain::{apps, channels, jobs, organizations};

#[tokio::test]
async fn deleted_app_or_organization_answers_like_a_missing_one() {
    let deployment = Deployment::start();
    let services = &deployment.services;
    let tenant = deployment.tenant("a").await;
    let second = deployment.app(&tenant.organization, "second").await;
    let never = code(
        apps::read_app(
            services,
            &ADMIN,
            &tenant.organization,
            &"app_0123456789abcdef".parse().unwrap(),
        )
        .await,
    );
    apps::delete_app(services, &ADMIN, &tenant.organization, &tenant.app, None)
        .await
        .unwrap();
    assert_eq!(
        code(apps::read_app(services, &ADMIN, &tenant.organization, &tenant.app).await),
        never
    );
    // A repeat continues the deletion until it is complete.
    apps::delete_app(services, &ADMIN, &tenant.organization, &tenant.app, None)
        .await
        .unwrap();
    deployment.later(Duration::from_secs(30));
    jobs::run::run_jobs(services).await.unwrap();
    assert_eq!(
        code(apps::delete_app(services, &ADMIN, &tenant.organization, &tenant.app, None).await),
        never
    );
    let listed = apps::list_apps(services, &ADMIN, &tenant.organization, ListPage::default())
        .await
        .unwrap();
    assert_eq!(
        listed
            .items
            .into_iter()
            .map(|app| app.id)
            .collect::<Vec<_>>(),
        std::slice::from_ref(&second)
    );

    organizations::delete_organization(services, &ADMIN, &tenant.organization, None)
        .await
        .unwrap();
    assert_eq!(
        code(organizations::read_organization(services, &ADMIN, &tenant.organization).await),
        ErrorCode::NotFound
    );
    assert_eq!(
        code(apps::read_app(services, &ADMIN, &tenant.organization, &second).await),
        ErrorCode::NotFound
    );
    let body = CreateApp {
        name: "late".into(),
        settings: AppSettings::default(),
    };
    assert_eq!(
        code(apps::create_app(services, &ADMIN, &tenant.organization, body, 1).await),
        ErrorCode::NotFound
    );
    assert!(
        organizations::list_organizations(services, &ADMIN, ListPage::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

async fn keys(deployment: &Deployment, partition: &Partition, table: Table) -> Vec<String> {
    let (page, _) = deployment
        .store
        .page(partition, table, Range::Keys { after: None }, 100)
        .await
        .unwrap();
    page.documents
        .into_iter()
        .map(|document| document.key.to_string())
        .collect()
}

async fn exists(deployment: &Deployment, partition: Partition) -> bool {
    deployment
        .services
        .snapshot(partition, vec![(ENTITY, ONLY.into())])
        .await
        .unwrap()
        .documents[0]
        .is_some()
}

#[tokio::test]
async fn a_deletion_that_was_interrupted_is_finished_by_any_node() {
    let deployment = Deployment::start();
    let (tenant, neighbour) = (deployment.tenant("a").await, deployment.tenant("b").await);
    let backend = deployment.backend(&tenant, Environment::Live).await;
    let alice = deployment.user(&backend, "alice").await;
    let signer = deployment.signer(&tenant, Algorithm::HS256).await;
    let hash = domain::credential::hash(secret(&tenant.organization_key));
    let channel = CreateChannel {
        id: None,
        kind: ChannelType::Group,
        name: None,
        description: None,
        icon: None,
        banner: None,
        creator_id: Some(alice.clone()),
        participant_ids: vec![],
        metadata: Default::default(),
    };
    let channel =
        channels::create::create_channel(&deployment.services, backend.actor().unwrap(), channel)
            .await
            .unwrap()
            .0
            .value
            .id;

    // A node wrote the tombstone and ended, long ago.
    let partition = schema::organization(&tenant.organization);
    let job = Job::new(Task::Organization {
        id: tenant.organization.clone(),
    });
    let noted = Commit::default().put_value(JOBS, partition.name(), &job);
    deployment
        .store
        .commit(&schema::deployment(), noted)
        .await
        .unwrap()
        .unwrap();
    let buried = Commit::default()
        .delete(ENTITY, ONLY)
        .put_value(TOMBSTONE, ONLY, &true);
    deployment
        .store
        .commit(&partition, buried)
        .await
        .unwrap()
        .unwrap();

    let (other, _) = deployment.another_node();
    assert_eq!(
        jobs::run::run_jobs(&other).await.unwrap(),
        JobsPass {
            finished: 1,
            ..JobsPass::default()
        }
    );
    assert!(!exists(&deployment, schema::credential(&hash)).await);
    assert!(!exists(&deployment, schema::app(&tenant.app)).await);
    assert!(keys(&deployment, &partition, KEYS).await.is_empty());
    let listed = keys(&deployment, &schema::deployment(), schema::ORGANIZATIONS).await;
    assert_eq!(listed, [neighbour.organization.to_string()]);
    // Its app has a job of its own, which waits until its keys are no longer cached. Here, too,
    // the node ends.
    assert_eq!(
        keys(&deployment, &schema::deployment(), JOBS).await,
        [schema::app(&tenant.app).name()]
    );
    let (third, _) = deployment.another_node();
    assert_eq!(
        jobs::run::run_jobs(&third).await.unwrap(),
        JobsPass::default()
    );
    third.clock.advance(Duration::from_secs(30));
    assert_eq!(
        jobs::run::run_jobs(&third).await.unwrap(),
        JobsPass {
            finished: 1,
            ..JobsPass::default()
        }
    );

    let live = scope_of(&tenant, Environment::Live);
    assert!(!exists(&deployment, live.user(&alice)).await);
    assert!(!exists(&deployment, live.channel(&channel)).await);
    assert!(!exists(&deployment, schema::token_key(&signer.id)).await);
    for table in [KEYS, TOKEN_KEYS] {
        assert!(
            keys(&deployment, &schema::app(&tenant.app), table)
                .await
                .is_empty()
        );
    }
    assert!(
        keys(&deployment, &schema::deployment(), JOBS)
            .await
            .is_empty()
    );
    assert_eq!(
        jobs::run::run_jobs(&other).await.unwrap(),
        JobsPass::default()
    );
    assert!(keys(&deployment, &live.index(), USERS).await.is_empty());
    assert!(keys(&deployment, &live.index(), CHANNELS).await.is_empty());
    assert_eq!(
        keys(
            &deployment,
            &schema::organization(&neighbour.organization),
            APPS
        )
        .await,
        [neighbour.app.to_string()]
    );
}

#[tokio::test]
async fn sessions_of_a_deleted_organization_end_with_the_request() {
    let deployment = Deployment::start();
    let services = &deployment.services;
    let tenant = deployment.tenant("a").await;
    deployment.app(&tenant.organization, "second").await;
    let endings = async || {
        let log = services.snapshot(schema::deployment(), Vec::new()).await;
        log.unwrap().head.seq
    };
    let before = endings().await;
    organizations::delete_organization(services, &ADMIN, &tenant.organization, None)
        .await
        .unwrap();
    assert_eq!(endings().await, before + 2, "of both apps, before any job");
}
