//! The part of an application's backend that CHAOS needs: it logs a user in and answers with a user
//! token, with which the user's device connects to CHAOS.
//!
//! Start a node in the root of the repository (`cargo run --release`); it has a demo app with the
//! users `alice` and `bob`. Then, in a second terminal:
//!
//! ```sh
//! export CHAOS_APP_KEY=$(grep -o 'sk_test_[^"]*' chaos-data/demo.json)
//! cargo run -p chaos-client --example token_backend -- 127.0.0.1:8080
//! ```
//!
//! and log in from a third one:
//!
//! ```sh
//! curl -sS -d '{"user_id": "alice", "password": "wonderland"}' http://127.0.0.1:8080/login
//! ```
//!
//! Shows [`Backend`]: HTTP with an app key, which never leaves the backend. Set `CHAOS_URL` if the
//! node is not at `http://127.0.0.1:7400`.

use std::{convert::Infallible, env};

use anyhow::{Context, Result};
use bytes::Bytes;
use client::{Backend, BackendError};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header::CONTENT_TYPE,
    server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use protocol::{
    UserId,
    operation::user::{MintToken, PutUser, Token, UserMintToken, UserReplace},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;

/// The application's own users and passwords; a real one has a database, and password hashes in it.
const ACCOUNTS: [(&str, &str, &str); 2] =
    [("alice", "wonderland", "Alice"), ("bob", "builder", "Bob")];

const MAX_BODY_BYTES: usize = 4096;
const TOKEN_SECONDS: u64 = 3600;

/// The body of `POST /login`.
#[derive(Deserialize)]
struct Login {
    user_id: UserId,
    password: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let url = env::var("CHAOS_URL").unwrap_or_else(|_| "http://127.0.0.1:7400".into());
    let app_key = env::var("CHAOS_APP_KEY").context("set CHAOS_APP_KEY to an app key")?;
    let address = env::args()
        .nth(1)
        .context("usage: token_backend ADDRESS:PORT")?;
    let backend = Backend::new(&url, &app_key)?;

    let listener = TcpListener::bind(&address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let backend = backend.clone();
        let service = service_fn(move |request| {
            let backend = backend.clone();
            async move { Ok::<_, Infallible>(handle(&backend, request).await) }
        });
        tokio::spawn(async move {
            if let Err(error) = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await
            {
                eprintln!("a connection ended: {error}");
            }
        });
    }
}

async fn handle(backend: &Backend, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if (request.method(), request.uri().path()) != (&Method::POST, "/login") {
        return answer(
            StatusCode::NOT_FOUND,
            &json!({ "error": "there is only POST /login" }),
        );
    }
    let Ok(body) = Limited::new(request.into_body(), MAX_BODY_BYTES)
        .collect()
        .await
    else {
        return answer(
            StatusCode::BAD_REQUEST,
            &json!({ "error": "cannot read the body" }),
        );
    };
    let Ok(login) = serde_json::from_slice::<Login>(&body.to_bytes()) else {
        return answer(
            StatusCode::BAD_REQUEST,
            &json!({ "error": "expected {\"user_id\", \"password\"}" }),
        );
    };
    let Some(first_name) = first_name(&login) else {
        return answer(
            StatusCode::UNAUTHORIZED,
            &json!({ "error": "unknown user or wrong password" }),
        );
    };
    match mint_token(backend, &login.user_id, first_name).await {
        Ok(token) => answer(StatusCode::OK, &token),
        Err(error) => {
            eprintln!("cannot mint a token for {}: {error}", login.user_id);
            answer(
                StatusCode::SERVICE_UNAVAILABLE,
                &json!({ "error": "try again later" }),
            )
        }
    }
}

/// Returns the first name of the user that logs in, if the password is right.
fn first_name(login: &Login) -> Option<&'static str> {
    let account = ACCOUNTS
        .iter()
        .find(|(id, password, _)| (*id, *password) == (login.user_id.as_str(), &login.password));
    account.map(|(_, _, first_name)| *first_name)
}

/// Creates the user in CHAOS, or updates its name, and mints a token for it.
async fn mint_token(
    backend: &Backend,
    user_id: &UserId,
    first_name: &str,
) -> Result<Token, BackendError> {
    let user = PutUser {
        first_name: Some(first_name.into()),
        ..PutUser::default()
    };
    backend.call::<UserReplace>(user_id, user).await?;
    backend
        .call::<UserMintToken>(
            user_id,
            MintToken {
                expires_in: Some(TOKEN_SECONDS),
            },
        )
        .await
}

fn answer(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(body).expect("the body has no keys that are not strings");
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body.into()))
        .expect("the status and the header are valid")
}
