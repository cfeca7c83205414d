//! Refused exports, and the permissions of the file.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn export_fails_if_the_app_is_written_to() {
    let world = World::with(StoreKind::Redis, 1, &["--limit", "requests_per_second=0"]).await;
    let busy = Busy::app(&world).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.jsonl");
    let words = [
        "export",
        "--app",
        &world.app,
        "--to",
        file.to_str().unwrap(),
    ];
    for _ in 0..300 {
        let _: Value = world
            .team()
            .post(
                "/v1/channels/help/messages",
                &json!({ "kind": "system", "text": "and" }),
            )
            .await
            .unwrap();
    }
    let Person {
        session,
        mut events,
        ..
    } = world.connects("ada").await;
    tokio::spawn(async move { while events.next().await.is_some() {} });
    let exporting = chaos(&words, &world.store);
    // A read position appends no event and changes no head.
    let reading = async {
        for number in 21.. {
            assert_eq!(
                session
                    .call::<ReadMark>(
                        &busy.help,
                        MarkRead {
                            number,
                            user_id: None
                        }
                    )
                    .await
                    .unwrap()
                    .read,
                number,
                "there is something to read"
            );
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let refused = tokio::select! {
        exported = exporting => exported.unwrap_err().to_string(),
        () = reading => unreachable!("it goes on"),
    };
    assert!(refused.contains("stop the nodes"), "{refused}");
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing is left of it"
    );
    // Nodes that do not write to the app do not matter.
    chaos(&words, &world.store).await.unwrap();
    let secret = folder.path().join("other-secret");
    fs::write(&secret, "ab".repeat(32)).unwrap();
    let other = [&world.store[..3], &[secret.display().to_string()]].concat();
    let sealed = chaos(&words, &other).await.unwrap_err().to_string();
    assert!(
        sealed.contains("sealed under another secret key"),
        "{sealed}"
    );
    let nobodys = chaos(&["export", "--app", "app_0000000000000000"], &world.store)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        nobodys.contains("there is no app app_0000000000000000"),
        "{nobodys}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folder_in_use_or_without_a_store_is_not_exported() {
    let world = World::with(StoreKind::Embedded, 1, &[]).await;
    let export = async |data: &[&str]| {
        chaos(&[&["export", "--app", &world.app], data].concat(), &[])
            .await
            .unwrap_err()
            .to_string()
    };
    let in_use = export(&["--data", &world.store[1]]).await;
    assert!(
        in_use.contains("in use by a node: stop it, or export from a copy"),
        "{in_use}"
    );
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none");
    let missing = export(&["--data", none.to_str().unwrap()]).await;
    assert!(
        missing.contains("holds no store") && !none.exists(),
        "{missing}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn export_file_is_private_and_links_are_not_followed() {
    let mut world = World::with(StoreKind::Embedded, 1, &super::super::FLAGS).await;
    let folder = tempfile::tempdir().unwrap();
    let (file, link, target) = (
        folder.path().join("app.jsonl"),
        folder.path().join("link"),
        folder.path().join("target"),
    );
    fs::write(&target, "of somebody else").unwrap();
    fs::write(&file, "an older export that everybody may read").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    for name in [&link, &folder.path().join("app.jsonl.partial")] {
        std::os::unix::fs::symlink(&target, name).unwrap();
    }
    world.exports(&file).await;
    assert_eq!(
        fs::symlink_metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let words = [
        "export",
        "--app",
        &world.app,
        "--to",
        link.to_str().unwrap(),
    ];
    let sentence = chaos(&words, &world.store).await.unwrap_err().to_string();
    assert!(sentence.contains("is a link"), "{sentence}");
    assert_eq!(fs::read_to_string(&target).unwrap(), "of somebody else");
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        4,
        "nothing is left behind"
    );
}
