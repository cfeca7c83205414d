//! HTTP requests against a server with canned responses.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use client::{Backend, BackendError};
use hyper::{Method, header::ETAG};
use protocol::{
    ChannelId, ErrorCode, MessageId, UserId,
    operation::{
        reaction::{ReactionAdd, ReactionSender},
        user::UserDelete,
    },
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

/// Starts a server that responds once. The handle returns the request.
async fn responding_with(response: &'static str) -> (Backend, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = Backend::new(
        &format!("http://{}/", listener.local_addr().unwrap()),
        "sk_test_1",
    )
    .unwrap();
    let request = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        loop {
            let mut part = [0; 4096];
            let n = stream.read(&mut part).await.unwrap();
            request.extend_from_slice(&part[..n]);
            let text = String::from_utf8_lossy(&request).to_lowercase();
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
        stream.write_all(response.as_bytes()).await.unwrap();
        String::from_utf8(request).unwrap()
    });
    (backend, request)
}

#[tokio::test]
async fn request_has_credential_and_json() {
    let (backend, request) = responding_with(
        "HTTP/1.1 201 Created\r\ncontent-length: 14\r\netag: \"1\"\r\n\r\n{\"id\":\"alice\"}",
    )
    .await;
    let response = backend
        .request(Method::POST, "/v1/users")
        .json(&json!({ "id": "alice" }))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (response.status.as_u16(), response.header(&ETAG)),
        (201, Some("\"1\""))
    );
    assert_eq!(response.json::<Value>().unwrap(), json!({ "id": "alice" }));
    let request = request.await.unwrap().to_lowercase();
    for part in [
        "post /v1/users http/1.1",
        "authorization: bearer sk_test_1",
        "content-type: application/json",
        "{\"id\":\"alice\"}",
    ] {
        assert!(request.contains(part), "{part} in {request}");
    }
}

#[tokio::test]
async fn error_has_status_and_body() {
    let (backend, _request) = responding_with(
        "HTTP/1.1 404 Not Found\r\ncontent-length: 55\r\n\r\n{\"error\":{\"code\":\"not_found\",\"message\":\"no such user\"}}",
    )
    .await;
    match backend.get::<Value>("/v1/users/nobody").await {
        Err(BackendError::Refused { status: 404, error }) => {
            assert_eq!(error.code, ErrorCode::NotFound)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn no_content_is_parsed_as_unit() {
    let (backend, request) = responding_with("HTTP/1.1 204 No Content\r\n\r\n").await;
    backend.delete::<()>("/v1/users/alice").await.unwrap();
    assert!(
        request
            .await
            .unwrap()
            .starts_with("DELETE /v1/users/alice ")
    );
}

#[tokio::test]
async fn call_has_the_ids_in_its_path_and_other_parameters_in_its_query() {
    let (backend, request) =
        responding_with("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"count\":2}").await;
    let (channel_id, message_id) = ("a@b".parse::<ChannelId>().unwrap(), MessageId::from_bits(1));
    let sender = ReactionSender {
        sender_id: Some("bob|x".parse().unwrap()),
    };
    let count = backend
        .call::<ReactionAdd>((&channel_id, &message_id, "👍"), sender)
        .await
        .unwrap();
    assert_eq!(count.count, 2);
    let line = "PUT /v1/channels/a%40b/messages/msg_0000000000000001/reactions/%F0%9F%91%8D?sender_id=bob%7Cx HTTP/1.1\r\n";
    assert!(request.await.unwrap().starts_with(line));
}

#[tokio::test]
async fn call_without_content_returns_an_empty_output() {
    let (backend, request) = responding_with("HTTP/1.1 204 No Content\r\n\r\n").await;
    let alice: UserId = "alice".parse().unwrap();
    backend.call::<UserDelete>(&alice, ()).await.unwrap();
    assert!(
        request
            .await
            .unwrap()
            .starts_with("DELETE /v1/users/alice HTTP/1.1\r\n")
    );
}

#[tokio::test]
async fn response_of_another_server_is_unreadable() {
    let (backend, _request) =
        responding_with("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\noops").await;
    assert!(matches!(
        backend.get::<Value>("/").await,
        Err(BackendError::Unreadable { status: 502, .. })
    ));
}
