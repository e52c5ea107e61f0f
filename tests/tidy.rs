//! The walls of the house, as docs/architecture.md draws them, and the rules that keep it readable.
//!
//! A rule that nothing enforces is only a wish. Each test names the file and says what to do instead.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Files longer than the rest may be, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[(
    "actors/src/socket.rs",
    "the bytes of a socket are in one file on purpose, with the cases of RFC 6455 beside them",
)];
const LONGEST: usize = 700;

/// Who may touch the bytes of a socket: the actor that owns it.
const SOCKET_FILE: &str = "actors/src/socket.rs";

/// Folders at the top. Another one needs a reason in docs/adr/ first.
const TOP_FOLDERS: &[&str] =
    &["actors", "benches", "client", "deploy", "docs", "migrations", "protocol", "schema", "scripts", "src", "tests"];

const PACKAGES: &[&str] = &[".", "actors", "schema", "protocol", "client", "benches"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn name_of(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below a folder with one of the endings, sorted; an absent folder has none.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
                folders.push(path);
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The source files of every package, without tests and benches.
fn sources() -> Vec<PathBuf> {
    PACKAGES.iter().flat_map(|package| files(&format!("{package}/src"), ".rs")).collect()
}

fn all_rust() -> Vec<PathBuf> {
    let mut all = sources();
    for package in PACKAGES {
        all.extend(files(&format!("{package}/tests"), ".rs"));
        all.extend(files(&format!("{package}/benches"), ".rs"));
    }
    all
}

/// The lines of a source that are code: no comments, and not the tests at its end.
fn code(path: &Path) -> String {
    let text = read(path);
    let before_tests = text.rsplit_once("#[cfg(test)]").map_or(text.as_str(), |(before, _)| before);
    before_tests.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]).collect()
}

/// Every file whose code has one of the words, except where they belong.
fn strays(files: Vec<PathBuf>, words: &[&str], belongs: impl Fn(&str) -> bool) -> Vec<String> {
    let mut strays = Vec::new();
    for path in files {
        let (name, text) = (name_of(&path), code(&path));
        for word in words.iter().filter(|word| text.contains(**word)) {
            if !belongs(&name) {
                strays.push(format!("{name}: `{word}`"));
            }
        }
    }
    strays
}

fn none(strays: &[String], instead: &str) {
    assert!(strays.is_empty(), "{instead}\n  {}", strays.join("\n  "));
}

#[test]
fn packages_point_one_way() {
    let forbidden = [
        ("protocol", &["sotto-schema", "sotto-actors", "sotto-client", "tokio", "actix", "diesel"][..]),
        ("schema", &["sotto-actors", "sotto-client", "actix"][..]),
        ("actors", &["sotto-client", "diesel"][..]),
        ("client", &["sotto-schema", "sotto-actors", "actix"][..]),
        // Whoever judges a server from outside knows nothing of its inside.
        ("benches", &["sotto.", "sotto-schema", "sotto-actors", "actix", "diesel", "redis", "tokio-postgres"][..]),
    ];
    let mut strays = Vec::new();
    for (package, words) in forbidden {
        let manifest = read(&root().join(package).join("Cargo.toml"));
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        for line in dependencies.lines().filter(|line| words.iter().any(|word| line.starts_with(word))) {
            strays.push(format!("{package}/Cargo.toml: {line}"));
        }
    }
    none(&strays, "protocol <- schema <- actors <- src and protocol <- client <- benches, never up");
}

#[test]
fn no_actix_in_schema() {
    none(&strays(files("schema/src", ".rs"), &["actix"], |_| false), "what is stored knows no actors");
}

#[test]
fn no_diesel_in_http() {
    let mut routes = files("src/http", ".rs");
    routes.push(root().join("src/http.rs"));
    routes.retain(|path| path.exists());
    none(&strays(routes, &["diesel"], |_| false), "queries live in schema/, handlers call them");
}

#[test]
fn redis_only_in_redis_files() {
    let mut strays = Vec::new();
    for path in sources().into_iter().filter(|path| !path.ends_with("redis.rs")) {
        // Our own modules of that name are not the library.
        let text = code(&path).replace("crate::redis::", "").replace("sotto_actors::redis::", "");
        let uses_library = text.contains("redis::") && !text.contains("mod redis;");
        if uses_library || text.contains("bb8_redis") {
            strays.push(name_of(&path));
        }
    }
    none(&strays, "a backend is one file named redis.rs");
}

#[test]
fn the_environment_only_in_config() {
    let words = ["std::env", "env::var", "env::vars", "use std::env"];
    none(&strays(sources(), &words, |name| name == "src/config.rs"), "settings come through Config");
}

#[test]
fn the_bytes_of_a_socket_in_one_file() {
    // `try_read()` without an argument is a lock's.
    let words = ["try_read(&", "try_write(&", "try_write_vectored(", "poll_read(", "poll_write(", "poll_shutdown("];
    // Before an upgrade they are HTTP's: the line only watches them pass, and keeps them back.
    let line = "src/listener/line.rs";
    let belongs = |name: &str| name == SOCKET_FILE || name == line || name.starts_with("client/");
    none(&strays(sources(), &words, belongs), "bytes go through actors/src/socket.rs");
}

#[test]
fn only_the_command_line_prints() {
    let words = ["io::stdout()", "io::stderr()"];
    let belongs = |name: &str| {
        // A full-screen view is no lines: it has the terminal to itself, and must give it back.
        let view = "src/cli/load/view/screen.rs";
        matches!(name, "src/cli/out.rs" | "src/telemetry.rs" | "src/boot.rs" | "src/demo.rs") || name == view
    };
    none(&strays(sources(), &words, belongs), "use tracing; commands print through cli/out.rs");
}

#[test]
fn every_module_opens_with_a_sentence_about_itself() {
    let mut strays = Vec::new();
    for path in all_rust() {
        let text = read(&path);
        let first = text.lines().next().unwrap_or_default();
        let says = first.strip_prefix("//! ").unwrap_or_default().trim();
        if says.split(' ').count() < 3 {
            strays.push(name_of(&path));
        }
    }
    none(&strays, "the first line of a file is `//!` and a sentence that says what it is");
}

#[test]
fn every_package_forbids_unsafe_code() {
    let workspace = read(&root().join("Cargo.toml"));
    assert!(workspace.contains("unsafe_code = \"forbid\""), "Cargo.toml: [workspace.lints.rust] forbids unsafe code");
    for package in PACKAGES {
        let manifest = read(&root().join(package).join("Cargo.toml"));
        assert!(manifest.contains("[lints]\nworkspace = true"), "{package}/Cargo.toml: take the workspace's lints");
    }
}

#[test]
fn both_databases_have_the_same_migrations() {
    let names = |database: &str| -> BTreeSet<String> {
        let folder = root().join("migrations").join(database);
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    };
    let (sqlite, postgres) = (names("sqlite"), names("postgres"));
    assert_eq!(sqlite, postgres, "a migration has one name and two folders");
    for database in ["sqlite", "postgres"] {
        for name in &sqlite {
            let folder = root().join("migrations").join(database).join(name);
            for file in ["up.sql", "down.sql"] {
                assert!(folder.join(file).is_file(), "migrations/{database}/{name} lacks {file}");
            }
        }
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    let mut strays = Vec::new();
    for path in all_rust() {
        let (name, lines) = (name_of(&path), read(&path).lines().count());
        if lines > LONGEST && !LONG_FILES.iter().any(|(long, _)| *long == name) {
            strays.push(format!("{name}: {lines} lines"));
        }
    }
    none(&strays, "split it by noun, or give it a reason in LONG_FILES");
    for (name, reason) in LONG_FILES {
        assert!(root().join(name).exists() && !reason.is_empty(), "LONG_FILES: {name} is gone or has no reason");
    }
}

#[test]
fn no_drawer_for_everything() {
    let mut strays = Vec::new();
    for path in all_rust() {
        let name = name_of(&path);
        let is_drawer =
            |part: &str| matches!(part.trim_end_matches(".rs"), "utils" | "util" | "common" | "core" | "helpers");
        if name.split('/').any(is_drawer) {
            strays.push(name);
        }
    }
    none(&strays, "name a module after the thing that it holds");
}

#[test]
fn the_top_of_the_house_is_known() {
    let ignored: Vec<String> = read(&root().join(".gitignore"))
        .lines()
        .map(|line| line.trim().trim_matches('/').to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    let mut strays = Vec::new();
    for entry in fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path();
        let name = name_of(&path);
        let known = name.starts_with('.') || TOP_FOLDERS.contains(&name.as_str()) || ignored.contains(&name);
        if path.is_dir() && !known {
            strays.push(name);
        }
    }
    none(&strays, "a new folder at the top needs a reason in docs/adr/ and a word in TOP_FOLDERS");
}

#[test]
fn every_test_file_is_declared() {
    let mut strays = Vec::new();
    for path in files("tests", ".rs") {
        let name = name_of(&path);
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let folder = path.parent().unwrap();
        let (stem, declared_in) = match (stem.as_str(), name.as_str()) {
            (
                _,
                "tests/main.rs"
                | "tests/faults/main.rs"
                | "tests/honest/main.rs"
                | "tests/planted/main.rs"
                | "tests/power_cut.rs",
            ) => continue,
            ("mod", _) => (folder.file_name().unwrap().to_string_lossy().into_owned(), parent_of(folder)),
            _ => (stem, parent_of(&path)),
        };
        let is_declared = declared_in.is_some_and(|parent| {
            let text = read(&parent);
            ["mod", "pub mod", "pub(crate) mod"]
                .iter()
                .any(|word| text.lines().any(|line| line.trim_start().starts_with(&format!("{word} {stem};"))))
        });
        if !is_declared {
            strays.push(name);
        }
    }
    none(&strays, "a file that nobody declares is a test that nobody runs");
}

/// The file that declares a module file or folder: `main.rs` at the top, else `folder.rs` or `folder/mod.rs`.
fn parent_of(path: &Path) -> Option<PathBuf> {
    let folder = path.parent()?;
    let candidates = [folder.join("main.rs"), folder.join("mod.rs"), folder.with_extension("rs")];
    candidates.into_iter().find(|candidate| candidate.exists())
}

#[test]
fn every_decision_is_listed() {
    let decisions: Vec<PathBuf> =
        files("docs/adr", ".md").into_iter().filter(|path| !path.ends_with("README.md")).collect();
    let list = fs::read_to_string(root().join("docs/adr/README.md")).unwrap_or_default();
    let mut strays = Vec::new();
    for path in decisions {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        if !list.contains(&format!("({file})")) && !list.contains(&format!("(./{file})")) {
            strays.push(file);
        }
    }
    none(&strays, "docs/adr/README.md links every decision");
}

#[test]
fn every_link_in_the_documents_resolves() {
    let mut pages = files("docs", ".md");
    pages.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root().join(name)));
    let mut strays = Vec::new();
    for page in pages.iter().filter(|page| page.exists()) {
        let text = read(page);
        for link in links(&text) {
            let target = link.split('#').next().unwrap_or_default();
            let is_elsewhere = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !is_elsewhere && !page.parent().unwrap().join(target).exists() {
                strays.push(format!("{}: {link}", name_of(page)));
            }
        }
    }
    none(&strays, "a link leads to a file that exists");
}

/// The targets of `[text](target)` outside of code.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        }
        // Every second part between backticks is code.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
        if !in_block {
            let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            links.extend(targets.map(|target| target.trim().to_owned()));
        }
    }
    links
}

#[test]
fn every_setting_is_read_somewhere() {
    use sotto::config::{Config, Section};

    let outside = sources().into_iter().filter(|path| !name_of(path).starts_with("src/config/"));
    let program: String = outside.map(|path| code(&path)).collect();
    let mut strays = Vec::new();
    for setting in Config::default().sections().into_iter().flat_map(Section::settings) {
        let key = setting.key();
        let is_read = program.contains(&format!(".{}", setting.name));
        if !is_read {
            strays.push(key);
        }
    }
    none(&strays, "a setting that does nothing is a lie: read it or remove it");
}
