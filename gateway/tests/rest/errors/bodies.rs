//! Bodies that are too large, too slow or of another media type.

use super::*;

#[tokio::test]
async fn a_media_type_that_is_not_read_is_unsupported() {
    let node = Node::start().await;
    let tenant = node.tenant().await;
    let app = node.by(&tenant.live);
    let user = |media: &'static str| app.clone().with("content-type", media);
    user("text/plain")
        .raw(Method::PUT, "/v1/users/u", Body::from("{}"))
        .await
        .refuses(415, "unsupported");
    user("application/merge-patch+json")
        .raw(Method::PUT, "/v1/users/u", Body::from("{}"))
        .await
        .refuses(415, "unsupported");
    app.raw(Method::PUT, "/v1/users/u", Body::from("{}"))
        .await
        .refuses(415, "unsupported");
    user("application/json")
        .with("content-encoding", "gzip")
        .raw(Method::PUT, "/v1/users/u", Body::from("{}"))
        .await
        .refuses(415, "unsupported");
    user("Application/JSON")
        .raw(Method::PUT, "/v1/users/u", Body::from("{}"))
        .await
        .is(201);
    user("application/merge-patch+json")
        .raw(Method::PATCH, "/v1/users/u", Body::from("{\"bio\":\"x\"}"))
        .await
        .is(200);
}

/// A body that counts how often it is polled.
struct Endless {
    announced: Option<u64>,
    asked: Arc<AtomicUsize>,
}

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b' '; 1024])))))
    }

    fn size_hint(&self) -> SizeHint {
        self.announced
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let node = Node::start().await;
    let tenant = node.tenant().await;
    let app = node
        .by(&tenant.live)
        .with("content-type", "application/json");
    for (announced, most) in [(Some(65_537), 0), (None, 65)] {
        let asked = Arc::new(AtomicUsize::new(0));
        let body = Body::new(Endless {
            announced,
            asked: asked.clone(),
        });
        app.raw(Method::POST, "/v1/users", body)
            .await
            .refuses(413, "too_large");
        assert_eq!(asked.load(Ordering::Relaxed), most, "of 1 KiB each");
    }
    // Without a credential, no body is read.
    let asked = Arc::new(AtomicUsize::new(0));
    let body = Body::new(Endless {
        announced: None,
        asked: asked.clone(),
    });
    node.by("")
        .with("content-type", "application/json")
        .raw(Method::POST, "/v1/users", body)
        .await
        .refuses(401, "unauthenticated");
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    let just = format!("{{\"metadata\":{{}}{}}}", " ".repeat(65_536 - 15));
    assert_eq!(just.len(), 65_536);
    app.raw(Method::POST, "/v1/users", Body::from(just))
        .await
        .is(201);
}

#[tokio::test]
async fn body_that_does_not_arrive_times_out() {
    let node = Node::start().await;
    let tenant = node.tenant().await;
    let app = node
        .by(&tenant.live)
        .with("content-type", "application/json");
    let never = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    let reply = app
        .raw(Method::POST, "/v1/users", never)
        .await
        .refuses(400, "bad_request");
    assert!(reply.text.contains("10 seconds"));
}
