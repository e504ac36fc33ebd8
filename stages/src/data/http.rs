//! Files over HTTP: streamed, resumed, tried again, verified.
//!
//! A body goes to `NAME.part` and gets its name only when size and hash are right: nothing that a server
//! sends can be taken for the file. A partial body is kept, and the next attempt asks for the rest.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use taper_engine::{Progress, Reporter, StageError, Unit};
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::{Agent, Body};

use super::hash::Expected;

/// Attempts that bring less than this count as failed ones.
const ADVANCE: u64 = 1 << 20;
const MOST_REDIRECTS: usize = 10;
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// A server that asks to wait longer is not waited for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);
/// Answers that are no files are kept in memory; this is far above any.
const LONGEST_ANSWER: u64 = 64 << 20;

/// Asks servers.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    bearer: Option<Bearer>,
    /// How often a request is tried at most.
    pub attempts: u32,
    /// How long is waited before the second attempt; doubled before each further one.
    pub first_delay: Duration,
}

/// A token, and the only origin that it is sent to.
#[derive(Clone)]
pub struct Bearer {
    /// `https://huggingface.co`.
    pub origin: String,
    /// The secret.
    pub token: String,
}

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bearer for {}", self.origin)
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum HttpError {
    /// The server said no.
    Refused(Box<Refusal>),
    /// There was no server, no disk, no time.
    Stage(StageError),
}

impl From<StageError> for HttpError {
    fn from(error: StageError) -> Self {
        Self::Stage(error)
    }
}

/// What a server said instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was asked for.
    pub url: String,
    /// The status, 300 and above.
    pub status: u16,
    /// `X-Error-Code`.
    pub code: Option<String>,
    /// `X-Error-Message`.
    pub message: Option<String>,
}

impl Refusal {
    /// Whether it may go well another time.
    pub fn may_pass(&self) -> bool {
        matches!(self.status, 408 | 425 | 429 | 500..=599)
    }

    /// What people are told, where nothing better is known.
    pub fn explain(&self) -> StageError {
        let reason = StatusCode::from_u16(self.status).ok();
        let reason = reason
            .and_then(|status| status.canonical_reason())
            .unwrap_or("");
        let said = self.message.as_ref().map(|message| format!(": {message}"));
        let message = format!(
            "{} answers {} {reason}{}",
            self.url,
            self.status,
            said.unwrap_or_default()
        );
        match self.may_pass() {
            true => StageError::transient(message)
                .help("the server is busy or broken; what came so far is kept: run again later"),
            false => StageError::failed(message)
                .help("open the address in a browser: is it right, and may everyone read it?"),
        }
    }
}

/// How one attempt ended, if not well.
struct Failure {
    error: HttpError,
    /// Whether another attempt may help, and what the server says of when.
    again: Option<Again>,
}

#[derive(Default)]
struct Again {
    after: Option<Duration>,
    /// Whether this attempt brought something all the same.
    advanced: bool,
}

impl Failure {
    fn last(error: impl Into<HttpError>) -> Self {
        Self {
            error: error.into(),
            again: None,
        }
    }

    fn passing(error: impl Into<HttpError>) -> Self {
        Self {
            error: error.into(),
            again: Some(Again::default()),
        }
    }
}

impl Client {
    /// A client; proxies are those of the environment. `TAPER_HTTP_RETRIES` says how often a request is
    /// tried again (4).
    pub fn new(bearer: Option<Bearer>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .accept_encoding("identity")
            .user_agent(concat!("taper/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .build();
        let retries = std::env::var("TAPER_HTTP_RETRIES")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(4_u32);
        Self {
            agent: Agent::new_with_config(config),
            bearer,
            attempts: retries.saturating_add(1),
            first_delay: Duration::from_millis(500),
        }
    }

    /// The body of a small answer, and the address that it came from in the end.
    ///
    /// # Errors
    /// Where the server refuses, does not answer, or answers more than 64 MiB.
    pub fn get(&self, url: &str, reporter: &Reporter) -> Result<Vec<u8>, HttpError> {
        self.retrying(reporter, || {
            let response = self.send(url, &[])?;
            let mut body = Vec::new();
            let reader = response.into_body().into_with_config().reader();
            reader
                .take(LONGEST_ANSWER + 1)
                .read_to_end(&mut body)
                .map_err(|error| Failure::passing(unreachable(url, &error)))?;
            match body.len() as u64 > LONGEST_ANSWER {
                true => Err(Failure::last(StageError::failed(format!(
                    "{url} answers more than {LONGEST_ANSWER} bytes"
                )))),
                false => Ok(body),
            }
        })
    }

    /// Downloads a file to `to`, where it appears only whole and verified; what is already of it in
    /// `to` + `.part` is not asked for again.
    ///
    /// # Errors
    /// Where the server refuses or does not answer, where the bytes that come are not the ones that are
    /// expected, where the disk is full, and where the user stops it.
    pub fn download(
        &self,
        url: &str,
        to: &Path,
        expected: &Expected,
        label: &str,
        reporter: &Reporter,
    ) -> Result<(), HttpError> {
        if let Some(parent) = to.parent() {
            fs_err::create_dir_all(parent).map_err(StageError::from)?;
        }
        let part = Part::beside(to);
        let progress =
            reporter.progress(format!("downloading {label}"), expected.size, Unit::Bytes);
        progress.add(part.size());
        let mut before = None;
        // Once more from the beginning where the bytes are wrong: a kept part may be of something else.
        loop {
            self.retrying(reporter, || {
                self.fill(url, &part, expected, &progress, reporter)
            })?;
            let Some(fault) = expected.fault(&part.path).map_err(StageError::from)? else {
                fs_err::rename(&part.path, to).map_err(StageError::from)?;
                part.forget_validator();
                return Ok(());
            };
            part.remove().map_err(StageError::from)?;
            if before.is_some() {
                return Err(not_as_expected(label, before.as_ref() == Some(&fault), &fault).into());
            }
            reporter.note(format!(
                "{label} came damaged ({fault}); downloading it again"
            ));
            before = Some(fault);
        }
    }

    /// Adds to the part what it lacks.
    fn fill(
        &self,
        url: &str,
        part: &Part,
        expected: &Expected,
        progress: &Progress,
        reporter: &Reporter,
    ) -> Result<(), Failure> {
        let mut have = part.size();
        let validator = part.validator();
        // A part can be continued where its bytes will be verified, or the server says that they are the same.
        let trusted = expected.hash.is_some() || validator.is_some();
        if have > 0 && (!trusted || expected.size.is_some_and(|size| have > size)) {
            part.remove()
                .map_err(|error| Failure::last(StageError::from(error)))?;
            have = 0;
        }
        if have > 0 && expected.size == Some(have) {
            return Ok(());
        }
        let mut headers = Vec::new();
        if have > 0 {
            headers.push(("Range", format!("bytes={have}-")));
            headers.extend(validator.map(|validator| ("If-Range", validator)));
        }
        let response = match self.send(url, &headers) {
            Err(Failure {
                error: HttpError::Refused(refusal),
                ..
            }) if refusal.status == 416 && have > 0 => {
                part.remove()
                    .map_err(|error| Failure::last(StageError::from(error)))?;
                return Err(Failure::passing(HttpError::Refused(refusal)));
            }
            other => other?,
        };
        let continued = response.status() == StatusCode::PARTIAL_CONTENT
            && header(response.headers(), "Content-Range")
                .is_some_and(|range| range.starts_with(&format!("bytes {have}-")));
        if !continued {
            have = 0;
        }
        let length =
            header(response.headers(), "Content-Length").and_then(|text| text.parse().ok());
        let total: Option<u64> = length.map(|length: u64| have + length);
        if let (Some(total), Some(size)) = (total, expected.size)
            && total != size
        {
            return Err(Failure::passing(StageError::transient(format!(
                "{url} has {total} bytes, not {size} as announced"
            ))));
        }
        part.remember(header(response.headers(), "ETag"));
        let file = part
            .open(have)
            .map_err(|error| Failure::last(StageError::from(error)))?;
        let came = copy(response, file, progress, reporter, url)?;
        match total.or(expected.size) {
            Some(total) if have + came < total => Err(Failure {
                error: StageError::transient(format!(
                    "{url} broke off after {} of {total} bytes",
                    have + came
                ))
                .help("what came is kept: run again to go on from there")
                .into(),
                again: Some(Again {
                    after: None,
                    advanced: came >= ADVANCE,
                }),
            }),
            _ => Ok(()),
        }
    }

    /// Sends a request and follows redirects. The token goes to its own origin only.
    fn send(&self, url: &str, headers: &[(&str, String)]) -> Result<Response<Body>, Failure> {
        let mut url = url.to_owned();
        for _ in 0..MOST_REDIRECTS {
            let mut request = self.agent.get(&url);
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            if let Some(bearer) = &self.bearer
                && origin(&url) == origin(&bearer.origin)
            {
                request = request.header("Authorization", format!("Bearer {}", bearer.token));
            }
            let response = request.call().map_err(|error| {
                let stage_error = unreachable(&url, &error);
                match error {
                    ureq::Error::BadUri(_)
                    | ureq::Error::Http(_)
                    | ureq::Error::InvalidProxyUrl => Failure::last(stage_error),
                    _ => Failure::passing(stage_error),
                }
            })?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            let target = header(response.headers(), "Location");
            match target.filter(|_| status.is_redirection()) {
                None => return Err(refused(&url, &response)),
                Some(target) => {
                    let next = join(&url, &target);
                    if url.starts_with("https:") && !next.starts_with("https:") {
                        return Err(Failure::last(StageError::failed(format!(
                            "{url} redirects to {next}, which is not encrypted"
                        ))));
                    }
                    url = next;
                }
            }
        }
        Err(Failure::last(StageError::failed(format!(
            "more than {MOST_REDIRECTS} redirects, the last of them to {url}"
        ))))
    }

    fn retrying<T>(
        &self,
        reporter: &Reporter,
        mut attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, HttpError> {
        let mut failed = 0;
        loop {
            reporter.check()?;
            let failure = match attempt() {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let Some(again) = failure.again else {
                return Err(failure.error);
            };
            failed = if again.advanced { 1 } else { failed + 1 };
            let waits_too_long = again.after.is_some_and(|after| after > LONGEST_RETRY_AFTER);
            if failed >= self.attempts || waits_too_long {
                return Err(failure.error);
            }
            let doubled = self.first_delay.saturating_mul(1 << (failed - 1).min(16));
            let delay = again.after.unwrap_or(doubled.min(LONGEST_DELAY));
            let what = match &failure.error {
                HttpError::Refused(refusal) => refusal.explain().message,
                HttpError::Stage(error) => error.message.clone(),
            };
            reporter.note(format!(
                "{what}; trying again in {:.1} s ({} of {})",
                delay.as_secs_f64(),
                failed + 1,
                self.attempts
            ));
            wait(delay, reporter)?;
        }
    }
}

/// A file that is not whole yet.
struct Part {
    path: PathBuf,
    /// The server's name for these bytes, so that a rest is not put behind another file's beginning.
    validator: PathBuf,
}

impl Part {
    fn beside(to: &Path) -> Self {
        let with = |suffix: &str| {
            let mut name = to.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        Self {
            path: with(".part"),
            validator: with(".part.etag"),
        }
    }

    fn size(&self) -> u64 {
        fs_err::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    fn validator(&self) -> Option<String> {
        fs_err::read_to_string(&self.validator).ok()
    }

    /// Only a strong validator says that bytes are the same.
    fn remember(&self, etag: Option<String>) {
        match etag.filter(|etag| etag.starts_with('"')) {
            // Without it the next attempt begins anew: no reason to fail this one.
            Some(etag) => drop(fs_err::write(&self.validator, etag)),
            None => self.forget_validator(),
        }
    }

    fn forget_validator(&self) {
        drop(fs_err::remove_file(&self.validator));
    }

    fn open(&self, keep: u64) -> std::io::Result<fs_err::File> {
        let file = fs_err::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)?;
        file.set_len(keep)?;
        Ok(file)
    }

    fn remove(&self) -> std::io::Result<()> {
        self.forget_validator();
        match fs_err::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Copies what comes; a connection that ends early is no error here.
fn copy(
    response: Response<Body>,
    mut file: fs_err::File,
    progress: &Progress,
    reporter: &Reporter,
    url: &str,
) -> Result<u64, Failure> {
    let mut reader = response.into_body().into_with_config().reader();
    let mut buffer = vec![0; 1 << 16];
    let mut came = 0_u64;
    loop {
        reporter.check().map_err(Failure::last)?;
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                let written = file.write_all(&buffer[..length]);
                written.map_err(|error| Failure::last(StageError::from(error)))?;
                came += length as u64;
                progress.add(length as u64);
            }
            Err(error) => {
                return Err(Failure {
                    error: StageError::transient(format!(
                        "{} broke off after {came} bytes: {error}",
                        without_query(url)
                    ))
                    .help("what came is kept: run again to go on from there")
                    .into(),
                    again: Some(Again {
                        after: None,
                        advanced: came >= ADVANCE,
                    }),
                });
            }
        }
    }
    file.sync_all()
        .map_err(|error| Failure::last(StageError::from(error)))?;
    Ok(came)
}

fn refused(url: &str, response: &Response<Body>) -> Failure {
    let refusal = Refusal {
        url: without_query(url).to_owned(),
        status: response.status().as_u16(),
        code: header(response.headers(), "X-Error-Code"),
        message: header(response.headers(), "X-Error-Message"),
    };
    let after = header(response.headers(), "Retry-After")
        .and_then(|text| text.trim().parse().ok())
        .map(Duration::from_secs);
    Failure {
        again: refusal.may_pass().then_some(Again {
            after,
            advanced: false,
        }),
        error: HttpError::Refused(Box::new(refusal)),
    }
}

/// Signed addresses carry secrets behind the question mark.
fn without_query(url: &str) -> &str {
    url.split_once('?').map_or(url, |(address, _)| address)
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn unreachable(url: &str, error: &dyn std::fmt::Display) -> StageError {
    StageError::transient(format!("cannot reach {}: {error}", without_query(url)))
        .help("is there a network, and does it need a proxy (HTTPS_PROXY)? What came so far is kept: run again to go on")
}

/// What came twice is not the file.
fn not_as_expected(label: &str, same: bool, fault: &str) -> StageError {
    match same {
        true => StageError::failed(format!(
            "{label} is not the file that is expected: {fault}, each time it is downloaded"
        ))
        .help("nothing of it was kept. Has the file changed where it is served, or is the expected hash wrong?"),
        false => StageError::transient(format!("{label} came damaged twice: {fault}"))
            .help("nothing of it was kept; is there a fault in the network? Try again later"),
    }
}

/// Waits, but not longer than until the user stops it.
fn wait(delay: Duration, reporter: &Reporter) -> Result<(), StageError> {
    let end = Instant::now() + delay;
    while let Some(left) = end
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        reporter.check()?;
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
    Ok(())
}

/// Scheme, host and port of an address, in one form.
pub fn origin(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let origin = format!("{scheme}://{host}").to_ascii_lowercase();
    let default = if scheme.eq_ignore_ascii_case("https") {
        ":443"
    } else {
        ":80"
    };
    origin
        .strip_suffix(default)
        .map_or(origin.clone(), str::to_owned)
}

/// The address that `target` means on the page `base`.
fn join(base: &str, target: &str) -> String {
    if target.contains("://") {
        return target.to_owned();
    }
    let (scheme, rest) = base.split_once("://").unwrap_or(("http", base));
    if let Some(rest) = target.strip_prefix("//") {
        return format!("{scheme}://{rest}");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    if target.starts_with('/') {
        return format!("{scheme}://{authority}{target}");
    }
    let path = without_query(rest);
    let folder = path
        .rsplit_once('/')
        .map_or(authority, |(folder, _)| folder);
    format!("{scheme}://{folder}/{target}")
}

/// The name of the file at an address.
pub fn file_name(url: &str) -> &str {
    let path = without_query(url);
    let path = path.split_once('#').map_or(path, |(path, _)| path);
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// Text as it stands in the path of an address; `/` stays.
pub fn escape_path(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_one_origin() {
        assert_eq!(
            origin("https://Hub.example:443/a?b"),
            origin("https://hub.example")
        );
        assert_ne!(origin("https://hub.example"), origin("http://hub.example"));
        assert_ne!(
            origin("http://hub.example:8080/"),
            origin("http://hub.example")
        );
        assert_ne!(
            origin("https://hub.example.evil.example"),
            origin("https://hub.example")
        );
        assert_eq!(
            origin("https://hub.example@evil.example/"),
            "https://evil.example"
        );
    }

    #[test]
    fn redirects_are_relative_to_their_page() {
        assert_eq!(join("http://a:1/b/c?d", "/e?f"), "http://a:1/e?f");
        assert_eq!(join("http://a:1/b/c", "e"), "http://a:1/b/e");
        assert_eq!(join("https://a/b", "//c/d"), "https://c/d");
        assert_eq!(join("https://a/b", "http://c/d"), "http://c/d");
    }

    #[test]
    fn names_and_escapes() {
        assert_eq!(file_name("https://a/b/reviews.csv?x=/y"), "reviews.csv");
        assert_eq!(escape_path("data/a b%.csv"), "data/a%20b%25.csv");
    }
}
