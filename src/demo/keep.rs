//! How to go on by hand with the server that was left running.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::story::Story;
use super::talk::rooms;
use super::world::World;
use super::{DemoError, within};

/// The file with the tokens, to be read by a shell.
const VARIABLES: &str = "tokens";

/// Leaves the devices' places free and prints what to type.
pub(super) async fn tell(story: &mut Story, world: &World, folder: &Path) -> Result<(), DemoError> {
    for device in world.devices() {
        within(format!("{} disconnects", device.name), device.client.disconnect()).await?;
    }
    let [_, group] = rooms(world)?;
    let path = folder.join(VARIABLES);
    let failed = |error| DemoError::files("cannot write the tokens", error);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    let token = DemoError::call;
    let alice = world.phone.client.access_token().await.map_err(token("Alice's token"))?;
    let bob = world.bob.client.access_token().await.map_err(token("Bob's token"))?;
    let url = &world.server.url;
    let lines = [
        format!("HOST={url}"),
        format!("WS={}/v1/ws", url.replacen("http", "ws", 1)),
        format!("ALICE='Authorization: Bearer {alice}'"),
        format!("BOB='Authorization: Bearer {bob}'"),
        format!("GROUP={group}"),
        "JSON='Content-Type: application/json'".to_owned(),
        "new_id() { cat /proc/sys/kernel/random/uuid 2>/dev/null || uuidgen | tr A-F a-f; }".to_owned(),
    ];
    writeln!(file, "{}", lines.join("\n")).map_err(failed)?;

    story.plain("");
    story.title("The server stays up until Ctrl-C. To go on by hand, in another terminal:");
    story.plain("");
    let path = path.display();
    let data = world.server.data.display();
    for line in [
        format!(". {path}    # addresses and tokens, valid for a day"),
        "curl -s $HOST/v1/auth/me -H \"$ALICE\"".to_owned(),
        "curl -s $HOST/v1/conversations -H \"$ALICE\"".to_owned(),
        "curl -s \"$HOST/v1/conversations/$GROUP/messages?limit=2\" -H \"$ALICE\"".to_owned(),
        String::new(),
        "# Alice's phone sends to the group. The server takes any bytes for ciphertext; it cannot tell.".to_owned(),
        "# (In a direct conversation a message carries `envelopes`, one for each device.)".to_owned(),
        "curl -s $HOST/v1/messages -H \"$ALICE\" -H \"$JSON\" -d '{\"kind\":\"text\",".to_owned(),
        "  \"ciphertext\":\"SGVsbG8\",\"conversation_id\":\"'$GROUP'\",\"message_id\":\"'$(new_id)'\"}'".to_owned(),
        String::new(),
        "# Bob's phone is not connected. It asks what waits for it, and confirms that it is stored.".to_owned(),
        "curl -s $HOST/v1/sync -H \"$BOB\"".to_owned(),
        "CURSOR=$(curl -s $HOST/v1/sync -H \"$BOB\" | sed 's/.*\"cursor\":\"\\([^\"]*\\)\".*/\\1/')".to_owned(),
        "curl -si $HOST/v1/sync/ack -H \"$BOB\" -H \"$JSON\" -d '{\"cursor\":\"'$CURSOR'\"}' | head -1".to_owned(),
        String::new(),
        "# Bob's phone on a WebSocket, with one of these; then send again as Alice. What arrives with a".to_owned(),
        "# number n is confirmed by typing {\"t\":\"ack\",\"d\":{\"n\":1}}".to_owned(),
        "websocat --protocol sotto.v1.json -H \"$BOB\" $WS".to_owned(),
        "npx wscat -s sotto.v1.json -H \"$BOB\" -c $WS".to_owned(),
        String::new(),
        "# What operators see.".to_owned(),
        "curl -s $HOST/health".to_owned(),
        "curl -s $HOST/metrics".to_owned(),
        format!("sqlite3 {data}/sotto.db 'SELECT count(*) FROM messages'"),
        format!("tail {data}/server.log"),
    ] {
        story.plain(&line);
    }
    Ok(())
}

/// Says what is left behind.
pub(super) fn farewell(story: &mut Story, folder: &Path) {
    story.plain(&format!("The server has drained and ended. Its data is in {} until you remove it.", folder.display()));
}
