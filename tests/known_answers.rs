//! Answers that standards publish, for every primitive of ring that this server builds on. (TOTP and HOTP stand beside
//! their code, JWS beside the access tokens, XEdDSA beside its verifier.)

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::{digest, hkdf, hmac, signature};

fn hex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.replace(' ', "").as_bytes()).unwrap()
}

/// FIPS 180-4, examples of SHA-256: one block, and two.
#[test]
fn sha_256() {
    for (text, expected) in [
        ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
    ] {
        assert_eq!(digest::digest(&digest::SHA256, text.as_bytes()).as_ref(), hex(expected));
    }
}

/// RFC 4231, section 4: test cases 1, 2, and 6, whose key is longer than a block.
#[test]
fn hmac_sha_256() {
    let cases: [(Vec<u8>, &[u8], &str); 3] = [
        (vec![0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (
            b"Jefe".to_vec(),
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            vec![0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
    ];
    for (key, data, expected) in cases {
        let (key, expected) = (hmac::Key::new(hmac::HMAC_SHA256, &key), hex(expected));
        assert_eq!(hmac::sign(&key, data).as_ref(), expected);
        assert!(hmac::verify(&key, data, &expected).is_ok());
        assert!(hmac::verify(&key, data, &expected[..31]).is_err(), "a shorter tag");
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// RFC 5869, appendix A.1 and A.3 (without salt and info).
#[test]
fn hkdf_sha_256() {
    let cases = [
        (
            hex("000102030405060708090a0b0c"),
            hex("f0f1f2f3f4f5f6f7f8f9"),
            "3cb25f25faacd57a90434f64d0362f2a 2d2d0a90cf1a5a4c5db02d56ecc4c5bf 34007208d5b887185865",
        ),
        (
            Vec::new(),
            Vec::new(),
            "8da4e775a563c18f715f802a063c5a31 b8a11f5c5ee1879ec3454e5f3c738d2d 9d201395faa4b61a96c8",
        ),
    ];
    for (salt, info, expected) in cases {
        let key = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt).extract(&[0x0b; 22]);
        let mut out = vec![0; 42];
        key.expand(&[&info], Length(42)).unwrap().fill(&mut out).unwrap();
        assert_eq!(out, hex(expected));
    }
}

/// McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B: test cases 13, 14 and 16.
#[test]
fn aes_256_gcm() {
    let (key, nonce) =
        (hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"), "cafebabefacedbaddecaf888");
    let text = hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525\
         b16aedf5aa0de657ba637b39");
    let sealed = "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838\
         c5f61e6393ba7a0abcc9f662 76fc6ece0f4e1768cddf8853bb2d551b";
    let cases = [
        (vec![0; 32], "000000000000000000000000", Vec::new(), "", "530f8afbc74536b9a963b4f1c4cb738b"),
        (
            vec![0; 32],
            "000000000000000000000000",
            vec![0; 16],
            "",
            "cea7403d4d606b6e074ec5d3baf39d18 d0d1c8a799996bf0265b98b5d48ab919",
        ),
        (key, nonce, text, "feedfacedeadbeeffeedfacedeadbeefabaddad2", sealed),
    ];
    for (key, nonce, text, data, expected) in cases {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
        let nonce = || Nonce::try_assume_unique_for_key(&hex(nonce)).unwrap();
        let mut cell = text.clone();
        key.seal_in_place_append_tag(nonce(), Aad::from(hex(data)), &mut cell).unwrap();
        assert_eq!(cell, hex(expected));
        assert_eq!(key.open_in_place(nonce(), Aad::from(hex(data)), &mut cell.clone()).unwrap(), text);
        assert!(key.open_in_place(nonce(), Aad::from(hex("00")), &mut cell).is_err(), "other data");
    }
}

/// RFC 8032, section 7.1: tests 1 to 3.
#[test]
fn ed25519() {
    for (key, message, expected) in [
        (
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ] {
        let public = signature::UnparsedPublicKey::new(&signature::ED25519, hex(key));
        public.verify(&hex(message), &hex(expected)).unwrap();
        let mut other = hex(expected);
        other[40] ^= 1;
        assert!(public.verify(&hex(message), &other).is_err());
        assert!(public.verify(b"other", &hex(expected)).is_err());
    }
}
