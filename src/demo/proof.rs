//! What the server has: rows of its database, and no plaintext in any of its files.

use std::path::Path;

use sotto_schema::PackedEnvelopes;
use sotto_schema::rows::MessageRow;

use super::DemoError;
use super::crash::rows;
use super::error::expect;
use super::scan::Needles;
use super::story::Story;
use super::world::{DEVICES, World};

/// Rows shown of each conversation.
const SHOWN: usize = 4;
/// Bytes shown of a ciphertext.
const BYTES: usize = 10;

/// Shows what stands in the server's database.
pub(super) async fn what_is_stored(story: &mut Story, world: &World) -> Result<(), DemoError> {
    story.scene("What the server has of all this: SELECT … FROM messages");
    story.plain(&format!(
        "{:<14} {:>3}  {:<6}  {:<14}  {:>7}  {:>5}  {}",
        "conversation", "seq", "kind", "sender device", "readers", "bytes", "ciphertext begins with"
    ));
    for room in &world.rooms {
        for row in rows(world, room).await?.iter().take(SHOWN) {
            let (readers, sizes, first) = ciphertext(world, row);
            let sender = row.sender_device.map_or("the server", |id| world.name_of(id));
            let hex: Vec<String> = first.iter().take(BYTES).map(|byte| format!("{byte:02x}")).collect();
            story.plain(&format!(
                "{:<14} {:>3}  {:<6}  {sender:<14}  {readers:>7}  {sizes:>5}  {} …",
                room.name,
                row.seq,
                row.kind.as_str(),
                hex.join(" ")
            ));
        }
    }
    story.paragraph(
        "“Alice–Bob” and so on are names of this demo; the table has ids. A row of a direct conversation holds one \
         ciphertext per device, a row of a group one for all.",
    );
    Ok(())
}

/// For how many devices a row is, how many bytes all ciphertexts have, and the first of them.
fn ciphertext(world: &World, row: &MessageRow) -> (String, usize, Vec<u8>) {
    if let Some(shared) = &row.ciphertext {
        return ("all".to_owned(), shared.len(), shared.to_vec());
    }
    let packed = PackedEnvelopes(row.envelopes.clone().unwrap_or_default().into());
    let devices = world.devices();
    let own: Vec<&[u8]> =
        devices.iter().filter_map(|device| packed.find(device.client.device_id())).map(|(_, bytes)| bytes).collect();
    let first = own.first().copied().unwrap_or_default().to_vec();
    (own.len().to_string(), own.iter().map(|bytes| bytes.len()).sum(), first)
}

/// Looks for everything that was said in everything that was written.
pub(super) fn no_plaintext(story: &mut Story, world: &World, folder: &Path) -> Result<(), DemoError> {
    let (mut texts, mut names) = (Needles::default(), Needles::default());
    for spoken in &world.spoken {
        texts.add_text(&spoken.text);
        names.add(spoken.message_id.as_bytes());
    }
    let failed = |error| DemoError::files("cannot read what the server wrote", error);
    let found = texts.scan(&world.server.data).map_err(failed)?;
    expect(found.places.is_empty(), || format!("plaintext stands in {}", found.places.join(", ")))?;
    // A search that finds nothing proves little unless it finds what is there.
    let control = names.scan(&world.server.data).map_err(failed)?;
    expect(control.places.len() >= world.spoken.len(), || {
        format!("the search is blind: it found {} of {} message ids", control.places.len(), world.spoken.len())
    })?;
    let devices = texts.scan(&folder.join(DEVICES)).map_err(failed)?;
    expect(devices.places.is_empty(), || format!("a device keeps plaintext in {}", devices.places.join(", ")))?;
    story.plain("");
    story.holds(&format!(
        "searched all {} files of the server ({:.1} MiB: database, write-ahead log, keys, outbox, log) for all {} \
         texts, as UTF-8, UTF-16 and base64: 0 found",
        found.files,
        mebibytes(found.bytes),
        world.spoken.len()
    ));
    story.holds(&format!(
        "the same search finds the {} message ids, which the server may know: it can see",
        world.spoken.len()
    ));
    story.holds(&format!("the devices' own stores are sealed too: 0 found in {} files", devices.files));
    story.flush();
    Ok(())
}

#[allow(clippy::as_conversions, clippy::cast_precision_loss, reason = "for the eye")]
fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}
