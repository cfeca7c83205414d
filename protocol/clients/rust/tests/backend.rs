//! HTTP calls against canned answers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use client::{Backend, BackendError};
use hyper::{Method, header::ETAG};
use protocol::ErrorCode;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

/// Answers one request; the handle gives what was asked.
async fn answering(answer: &'static str) -> (Backend, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = Backend::new(
        &format!("http://{}/", listener.local_addr().unwrap()),
        "sk_test_1",
    )
    .unwrap();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        loop {
            let mut part = [0; 4096];
            let n = stream.read(&mut part).await.unwrap();
            asked.extend_from_slice(&part[..n]);
            let text = String::from_utf8_lossy(&asked).to_lowercase();
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .lines()
                .find_map(|l| l.strip_prefix("content-length: "))
                .map_or(0, |n| n.parse().unwrap());
            if body.len() >= length {
                break;
            }
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(asked).unwrap()
    });
    (backend, asked)
}

#[tokio::test]
async fn a_call_carries_credential_and_json() {
    let (backend, asked) = answering(
        "HTTP/1.1 201 Created\r\ncontent-length: 14\r\netag: \"1\"\r\n\r\n{\"id\":\"alice\"}",
    )
    .await;
    let answer = backend
        .call(Method::POST, "/v1/users")
        .json(&json!({ "id": "alice" }))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.header(&ETAG)),
        (201, Some("\"1\""))
    );
    assert_eq!(answer.json::<Value>().unwrap(), json!({ "id": "alice" }));
    let asked = asked.await.unwrap().to_lowercase();
    for part in [
        "post /v1/users http/1.1",
        "authorization: bearer sk_test_1",
        "content-type: application/json",
        "{\"id\":\"alice\"}",
    ] {
        assert!(asked.contains(part), "{part} in {asked}");
    }
}

#[tokio::test]
async fn an_error_has_its_status_and_body() {
    let (backend, _asked) =
        answering("HTTP/1.1 404 Not Found\r\ncontent-length: 55\r\n\r\n{\"error\":{\"code\":\"not_found\",\"message\":\"no such user\"}}")
            .await;
    match backend.get::<Value>("/v1/users/nobody").await {
        Err(BackendError::Refused { status: 404, error }) => {
            assert_eq!(error.code, ErrorCode::NotFound)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn no_content_reads_as_nothing() {
    let (backend, asked) = answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    backend.delete::<()>("/v1/users/alice").await.unwrap();
    assert!(asked.await.unwrap().starts_with("DELETE /v1/users/alice "));
}

#[tokio::test]
async fn an_answer_that_is_no_error_of_ours_is_unreadable() {
    let (backend, _asked) =
        answering("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\noops").await;
    assert!(matches!(
        backend.get::<Value>("/").await,
        Err(BackendError::Unreadable { status: 502, .. })
    ));
}
