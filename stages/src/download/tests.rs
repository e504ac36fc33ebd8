use std::time::Duration;

use super::*;
use crate::artifact::{Dataset, Table};
use crate::testing::{LocalHub, Workshop, files_below, told};

const SMALL: &str = r#"{"hub": "local/imdb-small"}"#;
const MINI: &str = r#"{"hub": "google-bert/bert-base-cased", "type": "model", "files": ["config.json", "vocab.txt"]}"#;

/// A hub that is asked without patience.
fn impatient(endpoint: &str, token: Option<&str>) -> Hub {
    let mut hub = Hub::new(endpoint, token.map(str::to_owned), None, false);
    hub.client.attempts = 3;
    hub.client.first_delay = Duration::from_millis(1);
    hub
}

fn outside(shop: &Workshop, locked: Option<Resolved>, offline: bool) -> Outside<Resolved> {
    Outside {
        locked,
        offline,
        scratch: shop.fresh(),
        reporter: shop.reporter(),
    }
}

fn resolve(shop: &Workshop, hub: &Hub, params: &str) -> Result<Option<Resolved>, StageError> {
    resolve_at(
        hub,
        &shop.params::<Download>(params),
        &outside(shop, None, false),
    )
}

/// Resolves and runs; the context has what came out.
fn run(shop: &Workshop, hub: &Hub, params: &str) -> Result<Context, StageError> {
    let resolved = resolve(shop, hub, params)?;
    let context = shop.context(0);
    rerun(shop, hub, params, resolved, &context).map(|()| context)
}

fn rerun(
    shop: &Workshop,
    hub: &Hub,
    params: &str,
    resolved: Option<Resolved>,
    context: &Context,
) -> Result<(), StageError> {
    let stage = Stage {
        params: shop.params::<Download>(params),
        settings: NoSettings {},
        resolved,
    };
    run_at(hub, &stage, context)
}

fn names(context: &Context) -> Vec<String> {
    files_below(&context.out)
        .into_iter()
        .map(|(name, _)| name)
        .collect()
}

fn fails(arguments: &[&str], token: Option<&str>, params: &str) -> String {
    let server = LocalHub::start(arguments);
    let shop = Workshop::new();
    let error = run(&shop, &impatient(&server.endpoint, token), params);
    let error = error.err().expect("it has to fail");
    told(&error).replace(&server.endpoint, "HUB")
}

fn table(context: &Context, split: &str) -> Table {
    let name = format!("{split}.arrow");
    Table::open(&context.out.join(&name), name).expect("it opens")
}

#[test]
fn data_of_the_hub_is_pinned_and_read() {
    let server = LocalHub::start(&[]);
    let shop = Workshop::new();
    let hub = impatient(&server.endpoint, None);
    let context = run(&shop, &hub, SMALL).unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(names(&context), ["test.arrow", "train.arrow"]);
    let train = table(&context, "train");
    let labels = train.labels("label").expect("labels");
    assert_eq!(
        (train.rows(), labels.values.iter().sum::<i64>()),
        (2000, 1000)
    );
    assert_eq!(labels.names.expect("names"), ["neg", "pos"]);
    train.text("text").expect("text");

    let resolved = resolve(&shop, &hub, SMALL)
        .expect("resolves")
        .expect("pinned");
    let Resolved::Hub { commit, files } = &resolved else {
        panic!("{resolved:?}")
    };
    assert_eq!(commit.len(), 40);
    let pinned: Vec<_> = files
        .iter()
        .map(|pinned| {
            (
                pinned.split.as_deref(),
                pinned.file.path.as_str(),
                &pinned.file.hash,
            )
        })
        .collect();
    let test =
        Hash::Sha256("892de8b34c8bb09fd51d928d072df997c0ee56a463a08c57e60a561b67d9b8aa".into());
    assert_eq!(
        pinned[0],
        (
            Some("test"),
            "plain_text/test-00000-of-00001.parquet",
            &test
        )
    );
    assert_eq!(pinned[1].0, Some("train"));
    let text = serde_json::to_string(&resolved).expect("JSON");
    assert_eq!(
        serde_json::from_str::<Resolved>(&text).expect("read back"),
        resolved
    );
}

#[test]
fn configs_splits_and_old_names() {
    let server = LocalHub::start(&["--redirect", "all"]);
    let shop = Workshop::new();
    let hub = impatient(&server.endpoint, Some("anything"));
    let params = r#"{"hub": "glue", "config": "cola", "splits": ["validation"], "columns": {"label": "class"}}"#;
    let context = run(&shop, &hub, params).unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(names(&context), ["validation.arrow"]);
    assert_eq!(table(&context, "validation").rows(), 1043);
    let told = |params: &str| told(&run(&shop, &hub, params).err().expect("it has to fail"));
    insta::assert_snapshot!(told(r#"{"hub": "nyu-mll/glue"}"#), @r#"
    `nyu-mll/glue`: the repository has several data sets, and none is the default
      at config
      help: say `config:`, one of `cola` and `mrpc`
    "#);
    insta::assert_snapshot!(told(r#"{"hub": "nyu-mll/glue", "config": "coal"}"#), @r#"
    `nyu-mll/glue`: the repository has no config `coal`
      at config
      help: did you mean `cola`?
    "#);
    insta::assert_snapshot!(told(r#"{"hub": "nyu-mll/glue", "config": "cola", "splits": ["valid"]}"#), @r#"
    `nyu-mll/glue`: the data has no split `valid`
      at splits
      help: it has `test`, `train` and `validation`
    "#);
}

#[test]
fn models_come_under_their_names() {
    let server = LocalHub::start(&[]);
    let shop = Workshop::new();
    let hub = impatient(&server.endpoint, None);
    let context = run(
        &shop,
        &hub,
        r#"{"hub": "google-bert/bert-base-cased", "type": "model"}"#,
    );
    let context = context.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(
        names(&context),
        [
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.txt"
        ]
    );
}

#[test]
fn a_locked_pipeline_asks_nobody() {
    let shop = Workshop::new();
    let hub = impatient("http://127.0.0.1:1", None);
    let params = shop.params::<Download>(SMALL);
    let locked = Resolved::Hub {
        commit: "c".repeat(40),
        files: Vec::new(),
    };
    let resolved = resolve_at(&hub, &params, &outside(&shop, Some(locked.clone()), true));
    assert_eq!(resolved.expect("resolves"), Some(locked));
    let error = resolve_at(&hub, &params, &outside(&shop, None, true)).expect_err("not locked");
    insta::assert_snapshot!(told(&error), @r#"
    there is no network to be used, and the lock file does not say which commit of `local/imdb-small` is meant
      at hub
      help: run once with the network (without `--offline` and HF_HUB_OFFLINE), and commit the lock file
    "#);
}

#[test]
fn a_server_that_is_busy_is_asked_again() {
    let server = LocalHub::start(&["--fail-first", "2", "--retry-after", "0"]);
    let shop = Workshop::new();
    run(&shop, &impatient(&server.endpoint, None), MINI)
        .unwrap_or_else(|error| panic!("{}", told(&error)));
    let notes = shop.notes().join("\n");
    assert!(
        notes.contains("503") && notes.contains("trying again"),
        "{notes}"
    );
}

#[test]
fn a_server_that_stays_busy_is_told() {
    let busy = ["--fail-every", "1", "--retry-after", "0"];
    insta::assert_snapshot!(fails(&busy, None, MINI), @r#"
    HUB/api/models/google-bert/bert-base-cased/revision/main answers 503 Service Unavailable
      help: the server is busy or broken; what came so far is kept: run again later
    "#);
    let limited = [
        "--fail-every",
        "1",
        "--fail-status",
        "429",
        "--retry-after",
        "0",
    ];
    insta::assert_snapshot!(fails(&limited, None, MINI), @r#"
    the hub says that there were too many requests, 3 times
      at hub
      help: wait some minutes; signed in (HF_TOKEN), you may ask more often
    "#);
}

#[test]
fn a_cut_body_is_continued_where_it_broke_off() {
    let server = LocalHub::start(&[
        "--cut-after",
        "900000",
        "--cut-times",
        "1",
        "--fault-path",
        "*cdn*",
    ]);
    let shop = Workshop::new();
    let hub = impatient(&server.endpoint, None);
    let params = r#"{"hub": "local/imdb-small", "splits": ["test"]}"#;
    let context = run(&shop, &hub, params).unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(table(&context, "test").rows(), 2000);
    let log = server.log();
    assert!(
        log.contains("\"range\": \"bytes=900000-\", \"auth\": false"),
        "{log}"
    );
    assert!(log.contains("\"status\": 206"), "{log}");
}

#[test]
fn a_server_without_ranges_sends_it_all_again() {
    let server = LocalHub::start(&["--cut-after", "900000", "--cut-times", "1", "--no-range"]);
    let shop = Workshop::new();
    let params = r#"{"hub": "local/imdb-small", "splits": ["test"]}"#;
    let context = run(&shop, &impatient(&server.endpoint, None), params);
    let context = context.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(table(&context, "test").rows(), 2000);
}

#[test]
fn a_body_that_is_always_cut_is_told_and_kept() {
    let server = LocalHub::start(&["--cut-after", "1000", "--fault-path", "*vocab.txt"]);
    let shop = Workshop::new();
    let hub = impatient(&server.endpoint, None);
    let resolved = resolve(&shop, &hub, MINI).expect("resolves");
    let context = shop.context(0);
    let error = rerun(&shop, &hub, MINI, resolved, &context).expect_err("it has to fail");
    insta::assert_snapshot!(told(&error).replace(&server.endpoint, "HUB"), @r#"
    HUB/google-bert/bert-base-cased/resolve/f6ce1cdabcda41b85101c540fc8f6fe5faec5ea9/vocab.txt broke off after 1000 bytes: Peer disconnected
      help: what came is kept: run again to go on from there
    "#);
    assert_eq!(error.kind, taper_engine::StageErrorKind::Transient);
    let parts: Vec<_> = files_below(&context.scratch)
        .into_iter()
        .filter(|(name, _)| name.ends_with(".part"))
        .collect();
    assert_eq!(parts.len(), 1);
    assert_eq!(fs_err::metadata(&parts[0].1).expect("part").len(), 3000);
}

#[test]
fn corrupt_bytes_never_leave_scratch() {
    let server = LocalHub::start(&["--corrupt", "*vocab.txt"]);
    let shop = Workshop::new();
    let hub = impatient(&server.endpoint, None);
    let resolved = resolve(&shop, &hub, MINI).expect("resolves");
    let context = shop.context(0);
    let error = rerun(&shop, &hub, MINI, resolved, &context).expect_err("it has to fail");
    insta::assert_snapshot!(told(&error), @r#"
    vocab.txt is not the file that is expected: its hash is git blob 270ac43adf822d98b986444b142efda85660444b, not 2ea941cc79a6f3d7985ca6991ef4f67dad62af04, each time it is downloaded
      help: nothing of it was kept. Has the file changed where it is served, or is the expected hash wrong?
    "#);
    assert_eq!(names(&context), ["config.json"], "only what was verified");
    assert!(
        files_below(&context.scratch)
            .iter()
            .all(|(name, _)| !name.contains("part"))
    );
}

#[test]
fn refusals_have_remedies() {
    let gated = [
        "--gated",
        "datasets/local/*",
        "--token",
        "full",
        "--token-limited",
        "limited",
    ];
    insta::assert_snapshot!(fails(&gated, None, SMALL), @r#"
    the data set `local/imdb-small` is gated, and you are not signed in
      at hub
      help: accept its terms at HUB/datasets/local/imdb-small; then make a token at HUB/settings/tokens, and `export HF_TOKEN=…` (or `hf auth login`)
    "#);
    insta::assert_snapshot!(fails(&gated, Some("limited"), SMALL), @r#"
    the data set `local/imdb-small` is gated, and your token is not admitted to it
      at hub
      help: ask for access at HUB/datasets/local/imdb-small with the account of the token
    "#);
    insta::assert_snapshot!(fails(&gated, Some("unknown"), SMALL), @r#"
    the hub does not take your token: Invalid credentials in Authorization header
      at hub
      help: HF_TOKEN or the token in HF_HOME is wrong or has expired: make a token at HUB/settings/tokens, and `export HF_TOKEN=…` (or `hf auth login`)
    "#);
    let private = ["--private", "datasets/local/*"];
    insta::assert_snapshot!(fails(&private, None, SMALL), @r#"
    the hub has no data set `local/imdb-small` that everyone may read
      at hub
      help: is the name right? If it is private, make a token at HUB/settings/tokens, and `export HF_TOKEN=…` (or `hf auth login`)
    "#);
    insta::assert_snapshot!(fails(&[], Some("any"), r#"{"hub": "local/imdb-smal"}"#), @r#"
    the hub has no data set `local/imdb-smal`
      at hub
      help: is the name right (`OWNER/NAME`)? For a model, say `type: model`
    "#);
    insta::assert_snapshot!(fails(&[], None, r#"{"hub": "local/imdb-small", "revision": "v9"}"#), @r#"
    the data set `local/imdb-small` has no revision `v9`
      at revision
      help: its branches, tags and commits are at HUB/datasets/local/imdb-small/commits/main
    "#);
    insta::assert_snapshot!(fails(&[], None, r#"{"hub": "local/imdb-small", "type": "model"}"#), @r#"
    the hub has no model `local/imdb-small` that everyone may read
      at hub
      help: is the name right? If it is private, make a token at HUB/settings/tokens, and `export HF_TOKEN=…` (or `hf auth login`)
    "#);
    let forbidden = ["--fail-every", "1", "--fail-status", "403"];
    insta::assert_snapshot!(fails(&forbidden, None, SMALL), @r#"
    the hub denies access to the data set `local/imdb-small`
      at hub
      help: look at HUB/datasets/local/imdb-small with the account of your token: may it read this?
    "#);
}

#[test]
fn a_token_opens_gates_and_goes_to_the_hub_alone() {
    let server = LocalHub::start(&["--gated", "datasets/local/*", "--token", "full"]);
    let shop = Workshop::new();
    let hub = impatient(&server.endpoint, Some("full"));
    run(&shop, &hub, SMALL).unwrap_or_else(|error| panic!("{}", told(&error)));
    for line in server.log().lines() {
        let asked: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let to_hub = !asked["path"].as_str().expect("path").starts_with("/cdn");
        assert_eq!(asked["auth"], to_hub, "{line}");
    }
}

#[test]
fn the_hugging_face_cache_is_used_when_it_is_right() {
    let server = LocalHub::start(&[]);
    let shop = Workshop::new();
    let cache = shop.fresh();
    let hub = Hub::new(&server.endpoint, None, Some(cache.clone()), false);
    let Some(Resolved::Hub { commit, files }) = resolve(&shop, &hub, MINI).expect("resolves")
    else {
        panic!("it has to be pinned")
    };
    let folder = cache
        .join("models--google-bert--bert-base-cased/snapshots")
        .join(&commit);
    fs_err::create_dir_all(&folder).expect("folder");
    let data = crate::testing::shared("hub/data/models/google-bert/bert-base-cased");
    for pinned in &files {
        fs_err::copy(data.join(&pinned.file.path), folder.join(&pinned.file.path)).expect("copied");
    }
    let resolved = Some(Resolved::Hub { commit, files });
    let offline = hub.clone().offline(true);
    let context = shop.context(0);
    rerun(&shop, &offline, MINI, resolved.clone(), &context)
        .unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(names(&context), ["config.json", "vocab.txt"]);

    fs_err::write(folder.join("vocab.txt"), "something else").expect("written");
    let error = rerun(&shop, &offline, MINI, resolved, &shop.context(0)).expect_err("not the file");
    insta::assert_snapshot!(told(&error), @r#"
    there is no network to be used, and `vocab.txt` of `google-bert/bert-base-cased` is not in the Hugging Face cache
      help: run once with the network (without `--offline` and HF_HUB_OFFLINE)
    "#);
}

/// An address of the hub that gives a file as it is.
fn address(server: &LocalHub, path: &str) -> String {
    format!(
        "{}/datasets/local/imdb-small/resolve/main/{path}",
        server.endpoint
    )
}

#[test]
fn an_address_is_pinned_by_its_first_bytes() {
    let server = LocalHub::start(&[]);
    let shop = Workshop::new();
    let hub = impatient(&server.endpoint, None);
    let url = address(&server, "plain_text/test-00000-of-00001.parquet");
    let params = format!(r#"{{"url": "{url}"}}"#);
    let resolved = resolve(&shop, &hub, &params).expect("resolves");
    let sha256 = "892de8b34c8bb09fd51d928d072df997c0ee56a463a08c57e60a561b67d9b8aa".to_owned();
    let pinned = Resolved::Url {
        size: 1_676_148,
        sha256: sha256.clone(),
    };
    assert_eq!(resolved, Some(pinned));
    let context = run(&shop, &hub, &params).unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(names(&context), ["test.arrow"]);

    let given = format!(
        r#"{{"url": "{url}", "sha256": "{}"}}"#,
        sha256.to_uppercase()
    );
    assert_eq!(resolve(&shop, &hub, &given).expect("resolves"), None);
    run(&shop, &hub, &given).unwrap_or_else(|error| panic!("{}", told(&error)));

    let wrong = format!(
        r#"{{"url": "{url}", "type": "files", "sha256": "{}"}}"#,
        "0".repeat(64)
    );
    insta::assert_snapshot!(told(&run(&shop, &hub, &wrong).err().expect("wrong hash")), @r#"
    test-00000-of-00001.parquet is not the file that is expected: its hash is sha256 892de8b34c8bb09fd51d928d072df997c0ee56a463a08c57e60a561b67d9b8aa, not 0000000000000000000000000000000000000000000000000000000000000000, each time it is downloaded
      at url
      help: nothing of it was kept. Has the file changed where it is served, or is the expected hash wrong?
    "#);
    let missing = format!(r#"{{"url": "{}"}}"#, address(&server, "none.csv"));
    let error = run(&shop, &hub, &missing).err().expect("no such file");
    insta::assert_snapshot!(told(&error).replace(&server.endpoint, "HUB"), @r#"
    HUB/datasets/local/imdb-small/resolve/main/none.csv answers 404 Not Found: Entry not found
      at url
      help: open the address in a browser: is it right, and may everyone read it?
    "#);
}

#[test]
fn nobody_there() {
    let shop = Workshop::new();
    let error = resolve(&shop, &impatient("http://127.0.0.1:1", None), SMALL).expect_err("nobody");
    assert!(
        told(&error).starts_with("cannot reach http://127.0.0.1:1/api/datasets/local/imdb-small"),
        "{error}"
    );
    assert_eq!(error.kind, taper_engine::StageErrorKind::Transient);
}

#[test]
fn files_of_the_project() {
    let shop = Workshop::new();
    let open = |params: &str| -> Dataset { shop.open(&shop.run(Download, params)) };
    let one = shop.files(&[("file.csv", b"text,label\na,x\n")]);
    let data = open(&format!(
        r#"{{"path": "{one}", "columns": {{"label": "class"}}}}"#
    ));
    assert_eq!(data.split("train").map(Table::rows).expect("train"), 1);
    let folder = shop.files(&[
        ("train.csv", b"a\n1\n"),
        ("dev.csv", b"a\n2\n3\n"),
        ("README.md", b"#"),
    ]);
    let data = open(&format!(r#"{{"path": "{folder}"}}"#));
    assert_eq!(
        data.split("validation")
            .map(Table::rows)
            .expect("validation"),
        2
    );
    let each = format!(r#"{{"path": {{"mine": "{one}", "yours": "{one}"}}}}"#);
    assert_eq!(open(&each).splits().count(), 2);
    let model = shop.files(&[("config.json", b"{}"), ("1/x.bin", b"x")]);
    let kept = shop.run(
        Download,
        &format!(r#"{{"path": "{model}", "type": "model"}}"#),
    );
    assert_eq!(
        shop.artifact(&kept).names().collect::<Vec<_>>(),
        ["1/x.bin", "config.json"]
    );
    let odd = shop.files(&[("file.dat", b"text\na\n")]);
    insta::assert_snapshot!(shop.fail(Download, &format!(r#"{{"path": "{odd}"}}"#)), @r#"
    no file has a known extension: there is `file.dat`
      at path
      help: known are csv, tsv, jsonl, json, parquet, arrow; or say `format:`
    "#);
    open(&format!(r#"{{"path": "{odd}", "format": "csv"}}"#));
}

#[test]
fn a_sample_comes_from_the_program() {
    let shop = Workshop::new();
    let params = r#"{"sample": "acceptability", "rows": {"train": 40, "test": 10}}"#;
    let data = shop.open(&shop.run(Download, params));
    let rows: Vec<_> = data
        .splits()
        .map(|(split, table)| (split, table.rows()))
        .collect();
    assert_eq!(rows, [("test", 10), ("train", 40)]);
}

#[test]
fn parameters_that_do_not_go_together_are_told() {
    let shop = Workshop::new();
    let check = |params: &str| {
        let errors = Download.check(&shop.params::<Download>(params));
        errors.iter().map(told).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(check("{}"), @r#"
    it is not said where to download from
      help: give one of `hub: OWNER/NAME`, `url: https://…`, `path: data.csv`, `sample: acceptability`
    "#);
    insta::assert_snapshot!(check(r#"{"hub": "a/b", "url": "https://a/b.csv"}"#), @r#"
    more than one of `hub`, `url`, `path` and `sample` is given
      help: a stage downloads from one place: make two stages of it
    "#);
    insta::assert_snapshot!(check(r#"{"hub": "a/b/c", "sha256": "12", "rows": {"train": 1}}"#), @r#"
    `sha256` belongs to `url`, not to `hub`
      at sha256
      help: remove it
    `rows` belongs to `sample`, not to `hub`
      at rows
      help: remove it
    `a/b/c` cannot name a repository
      at hub
      help: names are `OWNER/NAME`: stanfordnlp/imdb
    "#);
    insta::assert_snapshot!(check(r#"{"url": "ftp://a/b", "b3": "12"}"#), @r#"
    `ftp://a/b` is no address: it begins with neither `https://` nor `http://`
      at url
      help: for a file of the project, say `path:`
    the address does not say what `b` holds
      at url
      help: say `format:`, one of csv, tsv, jsonl, json, parquet, arrow; or `type: files` to keep it as it is
    `12` is no such hash: it has 64 hexadecimal digits
      at b3
      help: `b3sum FILE` says it; put it in quotes if it is all digits
    "#);
    insta::assert_snapshot!(check(r#"{"sample": "acceptability", "rows": {"train": 0}, "type": "model"}"#), @r#"
    a sample is a data set
      at type
      help: remove `type`
    split `train` would be empty
      at rows.train
      help: ask for at least 1 row
    "#);
    insta::assert_snapshot!(check(r#"{"hub": "a/b", "type": "model", "splits": ["train"]}"#), @r#"
    `columns`, `config` and `splits` belong to data sets
      at type
      help: remove them, or say `type: dataset`
    "#);
    assert_eq!(check(SMALL), "");
}
