//! The program `sotto demo`, as a newcomer runs it: its story comes true, and nothing of it is left behind.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use sotto_client::Rest;

/// The story takes some seconds; a machine that does other things as well may take longer.
const PATIENCE: Duration = Duration::from_secs(120);

fn demo(arguments: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sotto"));
    command.arg("demo").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    (child, stdout)
}

/// Reads up to a line with a word in it.
fn read_to(stdout: &mut BufReader<ChildStdout>, word: &str) -> String {
    let mut text = String::new();
    while !text.contains(word) {
        assert!(stdout.read_line(&mut text).unwrap() > 0, "the demo ended before it said {word:?}:\n{text}");
    }
    text
}

/// The word behind another one.
fn word_behind(text: &str, before: &str) -> String {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("no {before:?} in\n{text}")).1;
    rest.split_whitespace().next().unwrap().trim_end_matches(',').to_owned()
}

fn somebody_listens(url: &str) -> bool {
    TcpStream::connect(url.trim_start_matches("http://")).is_ok()
}

#[test]
fn the_story_comes_true_and_leaves_nothing_behind() {
    let began = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_sotto")).arg("demo").stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(began.elapsed() < PATIENCE);
    assert!(text.contains("verdict: nothing lost, nothing doubled"), "{text}");
    assert!(text.contains("as UTF-8, UTF-16 and base64: 0 found"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "wider than 100 columns:\n{text}");
    assert!(!text.contains('\u{1b}'), "colours are for terminals");
    // The second device was linked by a code that is drawn here, and got the first message.
    assert!(text.matches(['█', '▀', '▄']).count() > 500, "no QR code:\n{text}");
    for step in
        ["shows this code", "scans it and is shown: “Alice's laptop”", "confirms with the code", "has its tokens"]
    {
        assert!(text.contains(step), "{step:?} is missing:\n{text}");
    }
    for step in ["sets a PIN", "the PIN is asked for", "it is wrong", "still has one device"] {
        assert!(text.contains(step), "{step:?} is missing:\n{text}");
    }
    let linked = text.split_once("has its tokens").unwrap().1;
    assert!(linked.contains("Alice's laptop  ← Alice's phone: “Hi Bob"), "the first message:\n{text}");

    // Her devices verify the trail of her account, and find a changed one out.
    for step in ["Alice's laptop was linked from 127.0.0.1", "have verified the same trail", "is not believed: entry 2"]
    {
        assert!(text.contains(step), "{step:?} is missing:\n{text}");
    }

    let figures: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
    let [messages, deliveries, .., total, "s"] = figures.as_slice() else { panic!("{figures:?}") };
    assert!(messages.parse::<u32>().unwrap() > 100, "{figures:?}");
    assert!(deliveries.parse::<u32>().unwrap() > messages.parse().unwrap(), "{figures:?}");
    assert!(total.parse::<f64>().unwrap() > 1.0, "{figures:?}");

    assert!(!somebody_listens(&word_behind(&text, " on http://")));
    assert!(!Path::new(&word_behind(&text, "keys and log in ")).exists());
}

#[test]
fn a_killed_demo_takes_its_server_with_it() {
    let (mut child, mut stdout) = demo(&[]);
    let text = read_to(&mut stdout, "keys and log in ");
    let address = word_behind(&text, " on http://");
    assert!(somebody_listens(&address));
    child.kill().unwrap();
    child.wait().unwrap();
    let began = Instant::now();
    while somebody_listens(&address) {
        assert!(began.elapsed() < Duration::from_secs(10), "the server outlives the demo");
        std::thread::yield_now();
    }
    // Nobody else can remove it: the demo was killed.
    let folder = word_behind(&text, "keys and log in ");
    std::fs::remove_dir_all(Path::new(&folder).parent().unwrap()).unwrap();
}

#[actix_rt::test]
async fn a_kept_server_serves_until_it_is_interrupted() {
    let (mut child, mut stdout) = demo(&["--keep"]);
    let text = read_to(&mut stdout, "server.log\n");
    let file = word_behind(&text, "\n. ");
    let tokens = std::fs::read_to_string(&file).unwrap();
    let value = |name: &str| {
        let line = tokens.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_matches('\'').trim_start_matches("Authorization: Bearer ").to_owned()
    };
    let rest = Rest::new(&value("HOST=")).unwrap();
    let me = rest.with_token(value("ALICE=")).me().await.unwrap();
    assert_eq!(me.user.phone, "+15550000001");
    let conversations = rest.with_token(value("BOB=")).conversations(None, None).await.unwrap();
    assert!(conversations.items.iter().any(|one| one.conversation_id.to_string() == value("GROUP=")));

    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let farewell = read_to(&mut stdout, "until you remove it");
    assert!(child.wait().unwrap().success(), "{farewell}");
    assert!(!somebody_listens(&value("HOST=")));
    let folder = Path::new(&file).parent().unwrap();
    assert!(folder.join("server/sotto.db").exists());
    std::fs::remove_dir_all(folder).unwrap();
}
