use quicksand_fetch::{Certificates, Settings, download::Client};

use super::*;
use crate::making::catalogue::{Cloud, fetch::Publishers};

#[path = "../../../tests/support/gpg.rs"]
mod gpg;
#[path = "../../../../quicksand-fetch/tests/support/https_server.rs"]
mod https_server;

use gpg::Publisher;
use https_server::{Served, Server};

const DIGITS: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn list() -> String {
    format!("{DIGITS} *system.img\n")
}

#[test]
fn a_list_is_believed_by_its_own_publishers_key_alone() {
    let (publisher, other) = (Publisher::new("Publisher"), Publisher::new("Other"));
    let keys = Keys::named(publisher.keyring());
    let signature = publisher.sign(&list(), "--detach-sign");
    let good = Verdict::Good(publisher.fingerprint(), None);
    assert_eq!(check(&keys, &list(), Some(&signature)).unwrap(), good);
    let armored = publisher.sign(&list(), "--armor --detach-sign");
    assert_eq!(check(&Keys::named(publisher.armored_keyring()), &list(), Some(&armored)).unwrap(), good);
    let tampered = list().replace("ba78", "ab78");
    assert!(matches!(check(&keys, &tampered, Some(&signature)).unwrap(), Verdict::Bad(said) if said.contains("BAD")));
    assert!(matches!(check(&keys, &list(), Some(b"nonsense")).unwrap(), Verdict::Bad(_)));
    let foreign = other.sign(&list(), "--detach-sign");
    assert!(matches!(check(&keys, &list(), Some(&foreign)).unwrap(), Verdict::OtherKey(_)));
}

#[test]
fn of_a_signed_message_only_what_is_signed_counts() {
    let publisher = Publisher::new("Publisher");
    let keys = Keys::named(publisher.keyring());
    let message = String::from_utf8(publisher.sign(&list(), "--clearsign")).unwrap();
    let around = format!("{} *evil.img\n{message}\n{} *evil.img\n", "0".repeat(64), "1".repeat(64));
    let Verdict::Good(fingerprint, Some(text)) = check(&keys, &around, None).unwrap() else { panic!() };
    assert_eq!((fingerprint, text), (publisher.fingerprint(), list()));
    let tampered = message.replace("ba78", "ab78");
    assert!(matches!(check(&keys, &tampered, None).unwrap(), Verdict::Bad(_)));
    assert!(matches!(check(&keys, &list(), None).unwrap(), Verdict::Bad(_)));
}

#[test]
fn armor_is_taken_off() {
    let text =
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\nComment: x\n\nYWJj\nZA==\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n";
    assert_eq!(dearmored(text.as_bytes()).unwrap(), b"abcd");
    assert_eq!(dearmored(format!("{text}\n{text}").as_bytes()).unwrap(), b"abcdabcd");
    assert_eq!(dearmored(&[0x99, 1, 2, 0xff]), None);
    assert_eq!(dearmored(text.replace("YW", "Y\u{e9}").as_bytes()), None);
}

/// A publisher's server, and what asks it with keys that count.
async fn found(
    files: &[(&str, Vec<u8>)],
    signature: Signature,
    keys: Option<Keys>,
) -> Result<(String, Trust), ImageError> {
    let server = Server::start();
    for (name, content) in files {
        server.serve(&format!("/images/{name}"), Served::bytes(content.clone()));
    }
    let path = server.certificate.path();
    let mut settings = Settings::default();
    settings.certificates = Some(Certificates::from_pem(path, fs::read(path).unwrap()));
    let publishers = Publishers::of_test(Client::new(&settings).unwrap(), keys);
    let cloud = Cloud {
        family: "ubuntu",
        directory: server.url("/images/"),
        file: "system.img".to_owned(),
        checksums: "SUMS".to_owned(),
        signature,
    };
    publishers.find(&cloud).await.map(|(found, trust)| (found.digest.digits().to_owned(), trust))
}

#[tokio::test]
async fn what_a_publisher_signed_is_told_from_what_it_did_not() {
    let (publisher, other) = (Publisher::new("Publisher"), Publisher::new("Other"));
    let beside = Signature::Beside(&[".gpg", ".asc"]);
    let demanded = || Some(Keys::named(publisher.keyring()));
    let of_the_host = || Some(Keys { demanded: false, ..Keys::named(publisher.keyring()) });
    let signed = Trust::Signed(publisher.fingerprint());
    let sums = ("SUMS", list().into_bytes());
    let good = [sums.clone(), ("SUMS.asc", publisher.sign(&list(), "--armor --detach-sign"))];
    for keys in [demanded(), of_the_host()] {
        assert_eq!(found(&good, beside, keys).await.unwrap(), (DIGITS.to_owned(), signed.clone()));
    }
    assert_eq!(found(&good, beside, None).await.unwrap().1, Trust::Tls);
    assert_eq!(found(&good, Signature::None, None).await.unwrap().1, Trust::Tls);

    // Another list under the same signature is refused, whoever named the keys.
    let tampered = [("SUMS", list().replace("ba78", "ab78").into_bytes()), good[1].clone()];
    for keys in [demanded(), of_the_host()] {
        let error = found(&tampered, beside, keys).await.unwrap_err().to_string();
        assert!(error.contains("/images/SUMS") && error.contains("BAD signature"), "{error}");
    }
    // Keys that the user named are demanded; those of the host may lack the publisher's newest.
    let foreign = [sums.clone(), ("SUMS.gpg", other.sign(&list(), "--detach-sign"))];
    let error = found(&foreign, beside, demanded()).await.unwrap_err().to_string();
    assert!(error.contains(&other.fingerprint()[24..]) && error.contains("quicksand.toml"), "{error}");
    assert_eq!(found(&foreign, beside, of_the_host()).await.unwrap().1, Trust::Tls);
    let error = found(std::slice::from_ref(&sums), beside, demanded()).await.unwrap_err().to_string();
    assert!(error.contains("SUMS.gpg") && error.contains("SUMS.asc"), "{error}");
    assert_eq!(found(std::slice::from_ref(&sums), beside, of_the_host()).await.unwrap().1, Trust::Tls);
    let error = found(std::slice::from_ref(&sums), Signature::None, demanded()).await.unwrap_err().to_string();
    assert!(error.contains("signs no list"), "{error}");

    let message = publisher.sign(&list(), "--clearsign");
    let inside = found(&[("SUMS", message)], Signature::Inside, demanded()).await.unwrap();
    assert_eq!(inside, (DIGITS.to_owned(), signed));
    let error = found(&[sums], Signature::Inside, demanded()).await.unwrap_err().to_string();
    assert!(error.contains("/images/SUMS"), "{error}");
}
