//! `RuncastLayer` against a real Redis: events of `tracing` are published as structured events, and
//! nothing else.

mod support;

use std::error::Error;
use std::fmt;

use runcast_common::protocol::event::{Kind, Text};
use runcast_common::protocol::limits::MAX_EVENT_BYTES;
use runcast_publisher::Options;
use runcast_publisher::Publisher;
use runcast_publisher::tracing_layer::RuncastLayer;
use runcast_redact::Redactor;
use serde_json::{Value, json};
use support::{PATIENCE, Run, Server, eventually};
use tracing::{debug, error, info, info_span, trace, warn};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;

/// Runs `program` with a layer. Returns the lines of the run.
async fn traced(
    layer: impl FnOnce(&Publisher) -> RuncastLayer,
    program: impl FnOnce(),
) -> Vec<Value> {
    let server = Server::start().await;
    let target = server.target();
    let publisher = Publisher::start(&target, Options::default()).expect("started");
    let subscriber = tracing_subscriber::registry().with(layer(&publisher));
    tracing::subscriber::with_default(subscriber, program);
    publisher.flush(PATIENCE).await.expect("flushed");
    lines(&Run::of(&target, &server)).await
}

async fn lines(run: &Run) -> Vec<Value> {
    let events = run.events().await;
    let line = |event: &runcast_common::protocol::entry::Event| serde_json::from_slice(&event.line);
    events
        .iter()
        .map(|event| line(event).expect("JSON"))
        .collect()
}

#[derive(Debug)]
struct Closed(TimedOut);

#[derive(Debug)]
struct TimedOut;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the cart is closed")
    }
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no answer in time")
    }
}

impl Error for Closed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

impl Error for TimedOut {}

#[tokio::test]
async fn an_event_has_its_level_fields_and_spans() {
    let lines = traced(RuncastLayer::new, || {
        let order = info_span!(target: "shop", "order", id = 7, customer = tracing::field::Empty);
        let _order = order.enter();
        order.record("customer", "Ada L.");
        let _step = info_span!(target: "shop", "step").entered();
        let cause = Closed(TimedOut);
        warn!(
            target: "shop::cart",
            ms = 812_u64, share = 0.25, good = false, much = u128::MAX, no = f64::NAN,
            items = ?vec!["a", "b"], error = &cause as &(dyn Error + 'static),
            "slow {}", "answer",
        );
    })
    .await;
    let [line] = &lines[..] else {
        panic!("{lines:?}");
    };
    let expected = json!({
        "kind": "log", "variation": 0, "time": line["time"],
        "level": "warn", "target": "shop::cart", "message": "slow answer",
        "fields": {
            "ms": 812, "share": 0.25, "good": false, "much": u128::MAX.to_string(), "no": "NaN",
            "items": r#"["a", "b"]"#, "error": "the cart is closed: no answer in time",
        },
        "spans": [
            {"name": "order", "fields": {"id": 7, "customer": "Ada L."}},
            {"name": "step", "fields": {}},
        ],
        "text": line["text"],
    });
    assert_eq!(line, &expected);
    assert_eq!(
        line["text"].as_str().expect("a text"),
        concat!(
            r#"order{id=7 customer="Ada L."}: step: slow answer ms=812 share=0.25 good=false "#,
            r#"much=340282366920938463463374607431768211455 no=NaN items="["a", "b"]" "#,
            r#"error="the cart is closed: no answer in time""#,
            "\n"
        )
    );
}

#[tokio::test]
async fn span_ends_are_published_only_on_request() {
    let program = || {
        let _outer = info_span!("outer", id = 1).entered();
        drop(info_span!("inner", of = "outer").entered());
    };
    assert_eq!(traced(RuncastLayer::new, program).await, [] as [Value; 0]);
    let layer = |publisher: &Publisher| RuncastLayer::new(publisher).with_span_closes(true);
    let lines = traced(layer, program).await;
    let ends: Vec<_> = lines
        .iter()
        .map(|line| (line["message"].as_str(), &line["spans"]))
        .collect();
    let outer = json!({"name": "outer", "fields": {"id": 1}});
    let inner = json!({"name": "inner", "fields": {"of": "outer"}});
    assert_eq!(
        ends,
        [
            (Some("closed"), &json!([outer, inner])),
            (Some("closed"), &json!([outer])),
        ]
    );
    for line in &lines {
        let ms = line["fields"]["duration_ms"].as_f64().expect("a number");
        assert!((0.0..20_000.0).contains(&ms), "{line}");
    }
}

#[tokio::test]
async fn events_of_the_publisher_itself_are_not_published() {
    let lines = traced(RuncastLayer::new, || {
        for level in 0..3 {
            info!(target: "redis", level);
            warn!(target: "runcast_publisher::sender", level);
            trace!(target: "tokio::task::waker", level);
        }
        // As the bridge from the `log` crate records it.
        info!(target: "log", { "log.target" = "redis::aio", "log.line" = 3_u64 }, "connected");
        info!(target: "log", { "log.target" = "shop::till", "log.line" = 3_u64 }, "open");
        info!(target: "redistribution", "of the goods");
    })
    .await;
    let seen: Vec<_> = lines
        .iter()
        .map(|line| (&line["target"], &line["message"], &line["fields"]))
        .collect();
    let none = json!({});
    assert_eq!(
        seen,
        [
            (&json!("shop::till"), &json!("open"), &none),
            (&json!("redistribution"), &json!("of the goods"), &none),
        ]
    );
}

#[tokio::test]
async fn secrets_are_masked_in_messages_fields_and_spans() {
    const SECRET: &str = "correct horse battery";
    let redactor = Redactor::new();
    redactor.add(SECRET.as_bytes()).expect("long enough");
    let layer = |publisher: &Publisher| RuncastLayer::new(publisher).with_redactor(&redactor);
    let lines = traced(layer, || {
        let _span = info_span!("login", with = SECRET).entered();
        info!(given = ?Some(SECRET), "it is {SECRET}");
        // The secret lies across the limit where a long value is cut.
        info!(long = format!("{}{SECRET}", "x".repeat(32 * 1024 - 15)));
    })
    .await;
    for line in &lines {
        let text = line.to_string();
        assert!(text.contains("[redacted]"), "{text}");
        assert!(!text.contains("correct h"), "{}", &text[..300]);
    }
    assert_eq!(lines[0]["message"], "it is [redacted]");
}

#[tokio::test]
async fn large_events_are_shortened_and_marked() {
    let lines = traced(RuncastLayer::new, || {
        // Six bytes each in JSON, twice; together more than the limit for events.
        info!(
            a = "\u{1}".repeat(30_000),
            b = "\u{1}".repeat(30_000),
            n = 5,
            "kept"
        );
        info!(one = "z".repeat(1_000_000));
        info!("evil \u{1b}[2J\nINFO forged");
    })
    .await;
    assert_eq!(lines.len(), 3);
    for line in &lines {
        assert!(line.to_string().len() <= MAX_EVENT_BYTES);
        let text = line["text"].as_str().expect("a text");
        assert_eq!(
            text.matches(|c: char| c.is_control()).count(),
            1,
            "one line"
        );
    }
    assert_eq!(
        (
            &lines[0]["shortened"],
            &lines[0]["message"],
            &lines[0]["fields"]["n"]
        ),
        (&json!(true), &json!("kept"), &json!(5))
    );
    let long = lines[1]["fields"]["one"].as_str().expect("a text");
    assert!(
        long.ends_with("… [967232 bytes more]"),
        "{}",
        &long[32_000..]
    );
    assert_eq!(lines[2]["text"], "evil \\u{1b}[2J\\nINFO forged\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_without_room_are_counted_in_their_place() {
    let mut server = Server::down();
    let target = server.target();
    let options = Options {
        buffer_bytes: 1,
        drop_oldest: Vec::new(),
        ..Options::default()
    };
    let publisher = Publisher::start(&target, options).expect("started");
    let payload = Text {
        text: Some("before\n"),
        ..Text::default()
    };
    // Full at the first attempt after a pause: the buffer accepts nothing more either.
    eventually("everything is full", async || {
        let mut published = 0_u64;
        while publisher.try_publish(Kind::Output, &payload).is_ok() {
            published += 1;
        }
        published == 0
    })
    .await;
    let subscriber = tracing_subscriber::registry().with(RuncastLayer::new(&publisher));
    let guard = tracing::subscriber::set_default(subscriber);
    for lost in 0..5 {
        info!(lost);
    }
    drop(guard);
    server.up().await;
    let run = Run::of(&target, &server);
    let mut all: Vec<Value> = Vec::new();
    // The buffer has room for one batch until Postgres holds it.
    let stored = eventually("all is stored", async || {
        let events = run.settle().await;
        let line =
            |event: &runcast_common::protocol::entry::Event| serde_json::from_slice(&event.line);
        all.extend(events.iter().map(|event| line(event).expect("JSON")));
        all.last().is_some_and(|line| line["text"] == "after\n")
    });
    let ((), published) = tokio::join!(stored, publisher.output("after\n"));
    published.expect("published");
    let tail = &all[all.len() - 3..];
    let shown: Vec<_> = tail
        .iter()
        .map(|line| (&line["kind"], &line["text"], &line["count"]))
        .collect();
    let (none, gap, output) = (json!(null), json!("gap"), json!("output"));
    assert_eq!(
        shown,
        [
            (&output, &json!("before\n"), &none),
            (&gap, &none, &json!(5)),
            (&output, &json!("after\n"), &none),
        ]
    );
}

/// What another layer writes.
#[derive(Clone, Default)]
struct Written(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .expect("not poisoned")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Written {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn each_layer_has_its_own_filter() {
    let server = Server::start().await;
    let target = server.target();
    let publisher = Publisher::start(&target, Options::default()).expect("started");
    let written = Written::default();
    let other = tracing_subscriber::fmt::layer().with_writer(written.clone());
    let subscriber = tracing_subscriber::registry()
        .with(other.with_filter(LevelFilter::ERROR))
        .with(RuncastLayer::new(&publisher).with_filter(LevelFilter::INFO));
    tracing::subscriber::with_default(subscriber, || {
        error!("for both");
        info!("for one");
        debug!("for none");
    });
    publisher.flush(PATIENCE).await.expect("flushed");
    let lines = lines(&Run::of(&target, &server)).await;
    let messages: Vec<_> = lines.iter().map(|line| &line["message"]).collect();
    assert_eq!(messages, ["for both", "for one"]);
    let written = String::from_utf8(written.0.lock().expect("not poisoned").clone());
    assert_eq!(written.expect("text").lines().count(), 1);
}
