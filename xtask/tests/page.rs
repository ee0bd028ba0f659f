//! `report.html` in a browser: opened, filtered, walked through by keyboard, and looked at in pictures.
//!
//! `cargo test -p xtask --test page -- --ignored --nocapture` needs chromium and chromedriver (Debian: `chromium-driver`).
//! The pictures are in `target/tmp/page`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests end a test where they find what must not be"
)]
#![cfg(unix)]

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use catwalk_harness::report::Report;
use fantoccini::actions::{InputSource, KeyAction, KeyActions};
use fantoccini::key::Key;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

/// How long a page of 10,000 cases may take to be there, and a filter to answer: milliseconds.
const OPENS: f64 = 2_000.0;
const ANSWERS: f64 = 100.0;
/// How large it may be: bytes.
const SIZE: u64 = 5_000_000;

/// chromedriver, which ends with this.
struct Driver {
    process: Child,
    address: String,
}

impl Driver {
    fn start() -> Self {
        let mut command = Command::new("chromedriver");
        // In a group of its own, with the browser.
        let mut process = command.arg("--port=0").stdout(Stdio::piped()).process_group(0).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = lines.map_while(Result::ok).find_map(|line| {
            let port = line.split_once("started successfully on port ")?.1;
            Some(port.trim_end_matches('.').to_owned())
        });
        Self { process, address: format!("http://127.0.0.1:{}", port.unwrap()) }
    }

    async fn browser(&self) -> Client {
        let options = json!({"goog:chromeOptions": {
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900"],
        }});
        let capabilities = options.as_object().unwrap().clone();
        ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&self.address)
            .await
            .unwrap()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg("--").arg(format!("-{}", self.process.id())).status();
        let _ = self.process.wait();
    }
}

/// A command of Chromium's own protocol, through its driver.
#[derive(Debug)]
struct Cdp(&'static str, Value);

impl WebDriverCompatibleCommand for Cdp {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(json!({"cmd": self.0, "params": self.1}).to_string()))
    }
}

struct Page(Client);

impl Page {
    async fn open(browser: Client, report: &Report, folder: &Path) -> Self {
        report.write(folder).unwrap();
        browser.goto(&format!("file://{}", folder.join("report.html").display())).await.unwrap();
        Self(browser)
    }

    async fn run(&self, script: &str) -> Value {
        self.0.execute(script, vec![]).await.unwrap()
    }

    async fn press(&self, key: Key) {
        let key = char::from(key);
        let keys = KeyActions::new("keyboard".to_owned());
        let keys = keys.then(KeyAction::Down { value: key }).then(KeyAction::Up { value: key });
        self.0.perform_actions(keys).await.unwrap();
    }

    async fn type_in(&self, text: &str) {
        self.0.active_element().await.unwrap().send_keys(text).await.unwrap();
    }

    /// What of the focused element a test looks at.
    async fn focus(&self, of: &str) -> String {
        let value = self.run(&format!("return String(document.activeElement.{of} ?? '')")).await;
        value.as_str().unwrap().to_owned()
    }

    /// Presses Tab until the focus is on what that selects; so often at most.
    async fn tab_to(&self, selector: &str, most: usize) {
        for _ in 0..most {
            self.press(Key::Tab).await;
            if self.run(&format!("return document.activeElement.matches({selector:?})")).await == json!(true)
            {
                return;
            }
        }
        panic!(
            "{selector} is not reached by {most} times Tab, the focus is on {}",
            self.focus("outerHTML").await
        );
    }

    async fn picture(&self, name: &str) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), self.0.screenshot().await.unwrap()).unwrap();
    }
}

/// Reports of real programs in one, as a run of several environments would be.
fn evidence() -> Report {
    let read = |id: &str| -> Report {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/evidence/nodeless").join(id);
        serde_json::from_slice(&std::fs::read(path.join("report.json")).unwrap()).unwrap()
    };
    let mut all = read("v3.30.1-corp.internal-strict");
    for id in ["v3.30.0-corp.internal-strict", "v3.30.0-corp.internal-dual", "v3.30.1-corp.internal-dual"] {
        let other = read(id);
        all.environments.extend(other.environments);
        all.cases.extend(other.cases);
    }
    all.sort();
    all
}

/// The same, so often that it has this many cases at least.
fn many(cases: usize) -> Report {
    let one = evidence();
    let mut all = one.clone();
    for index in 1.. {
        if all.cases.len() >= cases {
            break;
        }
        let other = |id: &str| id.replace("corp.internal", &format!("d{index}.corp.internal"));
        for environment in &one.environments {
            let mut environment = environment.clone();
            environment.id = other(&environment.id);
            let domain = format!("d{index}.corp.internal");
            environment.about.domain = catwalk_fixtures::ClusterDomain::observed(&domain);
            all.environments.push(environment);
        }
        for case in &one.cases {
            let mut case = case.clone();
            (case.id, case.environment) = (other(&case.id), other(&case.environment));
            all.cases.push(case);
        }
    }
    all
}

#[tokio::test]
#[ignore = "needs chromium and chromedriver"]
async fn a_page_of_ten_thousand_cases_is_quick() {
    let (driver, folder) = (Driver::start(), tempfile::tempdir().unwrap());
    let report = many(10_000);
    assert!(report.cases.len() >= 10_000);
    let page = Page::open(driver.browser().await, &report, folder.path()).await;
    let size = std::fs::metadata(folder.path().join("report.html")).unwrap().len();
    let opened = page.run("return performance.getEntriesByType('navigation')[0].loadEventEnd").await;
    let opened = opened.as_f64().unwrap();
    // From a key to the frame after the next, which is when it can be seen.
    let filter =
        "const [word, done] = arguments, began = performance.now(), text = document.getElementById('text');
        text.value = word; text.dispatchEvent(new Event('input'));
        requestAnimationFrame(() => requestAnimationFrame(() =>
            done([performance.now() - began, document.getElementById('count').textContent])));";
    let mut slowest: f64 = 0.0;
    for (word, expected) in
        [("d7.corp", "cases"), ("known", "cases"), ("nothing-of-the-kind", "0 of"), ("", "cases")]
    {
        let answer = page.0.execute_async(filter, vec![json!(word)]).await.unwrap();
        slowest = slowest.max(answer[0].as_f64().unwrap());
        assert!(answer[1].as_str().unwrap().contains(expected), "{word}: {answer}");
    }
    println!(
        "{} cases: {size} bytes, opens in {opened:.0} ms, filters in {slowest:.0} ms",
        report.cases.len()
    );
    assert!(size <= SIZE && opened <= OPENS && slowest <= ANSWERS);
    page.0.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs chromium and chromedriver"]
async fn the_keyboard_goes_from_the_filter_to_the_evidence_and_back() {
    let (driver, folder) = (Driver::start(), tempfile::tempdir().unwrap());
    let report = evidence();
    let page = Page::open(driver.browser().await, &report, folder.path()).await;
    let count = "return document.getElementById('count').textContent";
    assert_eq!(page.run(count).await, json!(format!("{0} of {0} cases", report.cases.len())));

    page.tab_to("input[type=search]", 3).await;
    page.type_in("v3.30.0 dual flow-is-delivered").await;
    assert_eq!(page.run(count).await, json!(format!("1 of {} cases", report.cases.len())));
    page.tab_to("button.chip", 3).await;
    page.tab_to("button.cell", 8).await;
    assert!(
        page.focus("ariaLabel").await.contains("CertificateNameMismatch"),
        "{}",
        page.focus("ariaLabel").await
    );
    page.press(Key::Enter).await;
    assert_eq!(page.run("return document.getElementById('detail').open").await, json!(true));
    let walk =
        page.run("return [...document.querySelectorAll('.walk li.broken')].map(li => li.textContent)").await;
    assert_eq!(walk, json!(["\u{2717} certificate"]), "the broken layer is marked, and no other");
    let said = page.run("return document.getElementById('detail').textContent").await;
    for expected in [
        "dialled goldmane.calico-system.svc.cluster.local",
        "valid for goldmane, goldmane.calico-system, goldmane.calico-system.svc, goldmane.calico-system.svc.corp.internal",
        "calico-10396",
        "TigeraStatus/whisker Available",
        "Second witness",
    ] {
        assert!(said.as_str().unwrap().contains(expected), "{expected}: {said}");
    }
    page.picture("evidence-light").await;
    // The evidence itself can be focused, and so scrolled by keys.
    page.tab_to("dialog pre", 4).await;
    page.press(Key::Escape).await;
    assert_eq!(page.run("return document.getElementById('detail').open").await, json!(false));
    assert!(page.focus("className").await.contains("cell"), "the focus is where it was");

    // Without the filter, arrow keys go through the matrix.
    page.run("const text = document.getElementById('text'); text.value = ''; text.dispatchEvent(new Event('input'))").await;
    page.run("document.querySelector('button.cell').focus()").await;
    let first = page.focus("ariaLabel").await;
    page.press(Key::Right).await;
    let right = page.focus("ariaLabel").await;
    page.press(Key::Down).await;
    let down = page.focus("ariaLabel").await;
    assert!(first != right && right != down && down != first, "{first} {right} {down}");
    page.press(Key::Up).await;
    page.press(Key::Left).await;
    assert_eq!(page.focus("ariaLabel").await, first);
    page.0.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs chromium and chromedriver"]
async fn it_fits_a_phone_and_the_dark_and_lets_nothing_in_or_out() {
    let (driver, folder) = (Driver::start(), tempfile::tempdir().unwrap());
    let mut report = evidence();
    let hostile = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>\u{202e}";
    for case in &mut report.cases {
        case.reason = Some(format!("{hostile} {}", case.reason.as_deref().unwrap_or_default()));
        if let Some(sight) = case.finding.as_mut().and_then(|finding| finding.sight.as_mut()) {
            sight.log.push(hostile.to_owned());
        }
    }
    report.environments[0].provenance.insert(hostile.to_owned(), hostile.to_owned());
    report.command = hostile.to_owned();
    report.problems.push(hostile.to_owned());
    let page = Page::open(driver.browser().await, &report, folder.path()).await;
    let phone = json!({"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": true});
    page.picture("matrix-light").await;
    page.0.issue_cmd(Cdp("Emulation.setDeviceMetricsOverride", phone)).await.unwrap();
    for scheme in ["light", "dark"] {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        page.0.issue_cmd(Cdp("Emulation.setEmulatedMedia", media)).await.unwrap();
        let paper = page.run("return getComputedStyle(document.body).backgroundColor").await;
        let [light, dark] = ["rgb(251, 250, 247)", "rgb(20, 23, 28)"];
        assert_eq!(paper, json!(if scheme == "dark" { dark } else { light }));
        let sideways = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(page.run(sideways).await, json!(0), "{scheme}: it scrolls sideways");
        page.picture(&format!("phone-{scheme}")).await;
        page.run("document.querySelector('button.cell').click()").await;
        assert_eq!(page.run(sideways).await, json!(0), "{scheme}: with a cell open it scrolls sideways");
        let wide = page
            .run("const d = document.getElementById('detail'); return d.scrollWidth - d.clientWidth")
            .await;
        assert_eq!(wide, json!(0), "{scheme}: what is behind a cell scrolls sideways");
        // This one has no walk, and nothing stands in its place.
        let text = page.run("return document.getElementById('detail').innerText").await;
        assert!(text.as_str().unwrap().starts_with("Close") && !text.to_string().contains("null"), "{text}");
        page.picture(&format!("phone-evidence-{scheme}")).await;
        page.run("document.getElementById('detail').close()").await;
    }
    page.0.issue_cmd(Cdp("Emulation.clearDeviceMetricsOverride", json!({}))).await.unwrap();
    page.picture("matrix-dark").await;
    let seen = page.run("return [document.title, document.images.length, document.scripts.length, performance.getEntriesByType('resource').length]").await;
    assert_eq!(seen[0].as_str().unwrap().split(':').next(), Some("Catwalk on nodeless"));
    assert_eq!(json!([seen[1], seen[2], seen[3]]), json!([0, 2, 0]), "images, scripts, requests");
    page.0.close().await.unwrap();
}
