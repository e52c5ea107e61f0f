//! A bot that repeats what it is told, and goes on where it was after a restart.
//!
//! `cargo run -p sotto-client --example echo_bot -- http://127.0.0.1:8080 +41791234567 bot.db`
//!
//! The first start asks for a code and waits for it on standard input; a server on your own machine
//! writes it to its log. Later starts need the store only.

use sotto_client::protocol::auth::{DeviceInfo, Platform, Purpose};
use sotto_client::protocol::message::Kind;
use sotto_client::{Client, Error, Event, Options, Result, SendOptions, SignIn, Store};
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(server), Some(phone), Some(store)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err(Error::Usage("echo_bot SERVER PHONE STORE".to_owned()));
    };
    let client = sign_in(&server, &phone, &store).await?;
    say(&format!("signed in as {}", client.user_id()));

    // The position says what was answered. Between the answer and the file the bot may be killed:
    // then the answer is sent again under the same name, which the server recognises.
    let position_file = PathBuf::from(store + ".position");
    let mut events = client.events_since(read_position(&position_file));
    client.connect();
    loop {
        let message = match events.next().await? {
            Event::Message(message) => message,
            Event::SignedOut => return Err(Error::SignedOut),
            Event::Disconnected { retry_in: None, code } => {
                return Err(Error::Closed { code, reason: "the server does not want us back".to_owned() });
            }
            _ => continue,
        };
        if message.kind == Kind::Text && message.from.user_id != client.user_id() {
            let options = SendOptions {
                reply_to: Some(message.message_id),
                message_id: Some(answer_to(&message)),
                ..SendOptions::default()
            };
            let answer = client.send_with(message.conversation_id, Kind::Text, message.content.clone(), options);
            match answer.await {
                // In the outbox it is as good as sent.
                Ok(_) | Err(Error::Undelivered { .. }) => {}
                Err(error) => say(&format!("not answered: {error}")),
            }
            // Reading is told again with the next message.
            if let Err(error) = client.mark_read(message.conversation_id, message.seq).await {
                say(&format!("not marked as read: {error}"));
            }
        }
        std::fs::write(&position_file, message.position.to_string())
            .map_err(|error| Error::Usage(error.to_string()))?;
    }
}

async fn sign_in(server: &str, phone: &str, store: &str) -> Result<Client> {
    let store = Store::open_with_key_beside(Path::new(store)).await?;
    match Client::open(Options::new(server), store.clone()).await {
        Err(Error::NotSignedIn) => {}
        opened => return opened,
    }
    let verification = Client::verify(server, phone, Purpose::Registration).await?;
    say("the code:");
    let mut code = String::new();
    std::io::stdin().lock().read_line(&mut code).map_err(|error| Error::Usage(error.to_string()))?;
    let device = DeviceInfo {
        name: "echo bot".to_owned(),
        platform: Platform::Desktop,
        fingerprint: None,
        model: None,
        os_version: None,
        app_version: None,
        push: None,
    };
    let sign_in = SignIn::new(verification.verification_id, code.trim(), device);
    Client::register(Options::new(server), store, sign_in).await
}

/// The same name for the same question, whenever it is asked.
fn answer_to(message: &sotto_client::event::Message) -> sotto_client::protocol::MessageId {
    let mut bytes = *message.message_id.as_bytes();
    // Any change will do that leaves it unlike every name that others make.
    bytes.iter_mut().skip(8).for_each(|byte| *byte ^= 0x5a);
    sotto_client::protocol::MessageId(uuid::Uuid::from_bytes(bytes))
}

fn read_position(file: &Path) -> i64 {
    std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn say(text: &str) {
    // A terminal that is gone is no reason to stop answering.
    drop(writeln!(std::io::stderr(), "{text}"));
}
