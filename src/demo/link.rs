//! A second device without a text message of its own: the laptop shows a QR code, the phone scans and confirms it.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use sotto_client::protocol::auth::Purpose;
use sotto_client::protocol::reauthentication::Reauthentication;
use sotto_client::{Client, PendingLink};

use super::device::{Device, NewDevice};
use super::error::expect;
use super::server::Server;
use super::story::Story;
use super::{DemoError, within};

/// Links a new device to the account of another one.
pub(super) async fn link(
    new: NewDevice,
    by: &Device,
    story: &mut Story,
    server: &Server,
    folder: &Path,
) -> Result<Arc<Device>, DemoError> {
    let (name, phone) = (new.name, new.phone);
    let began = Instant::now();
    let failed = |what: &str| DemoError::call(format!("{name}: {what}"));
    let store = new.store(folder).await?;
    let pending = within(format!("{name} begins a link"), Client::link(new.options(server), store, new.info())).await?;
    let pending = pending.map_err(failed("begins a link"))?;
    story.tell(name, "is new here, has no number of its own, and shows this code (good for five minutes, once):");
    story.flush();
    draw(story, &pending)?;
    let qr = pending.qr().to_owned();
    // The new device asks all the while; whoever confirms wakes it.
    let waiting = tokio::spawn(pending.wait());

    let scanned = within(format!("{} scans", by.name), by.client.scan_link(&qr)).await?;
    let (uri, who) = scanned.map_err(failed("is scanned"))?;
    expect(who.device.name == name, || format!("the code shows “{}” instead of {name}", who.device.name))?;
    let from = who.address.unwrap_or_else(|| "an address that is not kept".to_owned());
    story
        .tell(by.name, format!("scans it and is shown: “{}”, {:?}, from {from}", who.device.name, who.device.platform));
    let verification =
        within("a code to confirm with", Client::verify(&server.url, phone, Purpose::DeviceLink)).await?;
    let verification_id = verification.map_err(failed("a code"))?.verification_id;
    let code = server.last_code(phone)?;
    let proof = Reauthentication::by_code(verification_id, code.clone());
    let answer = within(format!("{} confirms", by.name), by.client.confirm_link(&uri, &proof)).await?;
    let confirmed = Instant::now();
    answer.map_err(failed("is confirmed"))?;
    story.tell(by.name, format!("confirms with the code {code} from a text message to its own number"));
    let client = within(format!("{name} is linked"), waiting).await?;
    let client = client.map_err(|error| DemoError::Broken(format!("{name} waits no more: {error}")))?;
    let client = client.map_err(failed("is linked"))?;
    let woken = confirmed.elapsed().as_millis();
    let device = new.device(client);
    expect(device.client.user_id() == by.client.user_id(), || format!("{name} has joined another account"))?;
    story.tell(
        name,
        format!(
            "has its tokens {woken} ms after that: another device of the same account, {} ms in all",
            began.elapsed().as_millis()
        ),
    );
    // The code is worth nothing any more.
    let again = within(format!("{} scans again", by.name), by.client.scan_link(&qr)).await?;
    expect(again.is_err(), || "a code that was used can be scanned again".to_owned())?;
    Ok(device)
}

/// Draws the code as a terminal can: two rows of it in one line, dark on light whatever the terminal's colours are.
fn draw(story: &mut Story, pending: &PendingLink) -> Result<(), DemoError> {
    let code = QrCode::with_error_correction_level(pending.qr().as_bytes(), EcLevel::L);
    let code = code.map_err(|error| DemoError::Broken(format!("the code cannot be drawn: {error}")))?;
    // Inverted: the light modules are what a terminal with a dark background draws.
    let picture = code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
    for line in picture.lines() {
        story.plain(&format!("  {line}"));
    }
    Ok(())
}
