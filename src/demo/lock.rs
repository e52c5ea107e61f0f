//! A stolen number: Carol's is protected by a PIN, and whoever gets her text messages gets nothing else.

use std::time::Instant;

use sotto_client::protocol::auth::{DeviceInfo, Platform, Purpose};
use sotto_client::protocol::problem::ErrorCode;
use sotto_client::protocol::reauthentication::Reauthentication;
use sotto_client::{Client, Options, SignIn, Store};

use super::error::expect;
use super::story::Story;
use super::world::World;
use super::{DemoError, within};

/// Carol's number.
const NUMBER: &str = "+15550000003";
/// Hers, and nobody else's.
const PIN: &str = "258014";
const WRONG: &str = "141592";

/// Protects Carol's number, and lets a thief try with every code that is sent to it.
pub(super) async fn protect(story: &mut Story, world: &World) -> Result<(), DemoError> {
    story.scene("Somebody steals Carol's number: text messages alone open nothing");
    let (carol, server) = (&world.carol, &world.server);
    let failed = |what: &'static str| DemoError::call(what);
    let code = async |purpose| {
        let asked = within("a code for Carol's number", Client::verify(&server.url, NUMBER, purpose)).await?;
        let verification_id = asked.map_err(failed("a code for Carol's number"))?.verification_id;
        Ok::<_, DemoError>((verification_id, server.last_code(NUMBER)?))
    };
    let (verification_id, sms) = code(Purpose::RegistrationLock).await?;
    let proof = Reauthentication::by_code(verification_id, sms);
    let began = Instant::now();
    let set = within("Carol sets a PIN", carol.client.set_registration_lock(PIN, proof)).await?;
    set.map_err(failed("Carol sets a PIN"))?;
    let took = began.elapsed().as_millis();
    story.tell(carol.name, format!("sets a PIN of six digits: hashed with Argon2id and sealed, {took} ms"));

    let (verification_id, sms) = code(Purpose::Login).await?;
    let thief = DeviceInfo {
        name: "The thief's phone".to_owned(),
        platform: Platform::Android,
        fingerprint: None,
        model: None,
        os_version: None,
        app_version: None,
        push: None,
    };
    let store = Store::in_memory().map_err(failed("the thief has a phone"))?;
    let with_code = SignIn::new(verification_id, sms, thief);
    for (what, sign_in) in
        [("the right code, from Carol's SIM card", with_code.clone()), ("a PIN, too", with_code.with_pin(WRONG))]
    {
        let tried = Client::login(Options::new(&server.url), store.clone(), sign_in);
        let refused = within("the thief tries to sign in", tried).await?.err();
        let refused = refused.ok_or_else(|| DemoError::Broken("a thief was signed in".to_owned()))?;
        expect(refused.needs_second_factor(), || format!("the thief was told {refused}"))?;
        let says = match refused.code() {
            Some(ErrorCode::SecondFactorRequired) => "the PIN is asked for",
            _ => "it is wrong, and five a day are all",
        };
        story.tell("A thief", format!("tries {what}: {says}"));
    }
    let devices = within("Carol's devices", carol.client.rest()).await?.map_err(failed("Carol's devices"))?;
    let devices = within("Carol's devices", devices.own_devices()).await?.map_err(failed("Carol's devices"))?;
    expect(devices.len() == 1, || format!("Carol has {} devices", devices.len()))?;
    story.holds("Carol's account still has one device, and it is hers");
    story.flush();
    Ok(())
}
