//! User tokens: verifies a JWT with one token key, and signs one. Uses no store, and takes the time
//! as an argument.
//!
//! Claims are used only after the signature is verified. Before that only `kid` is read, to find
//! the key. The key alone decides the algorithm, the app and the environment.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    VerificationAlgorithm,
};
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use protocol::{TokenKeyId, UserId, entity::Algorithm};
use serde_json::{Map, Value};

use super::secret::SecretKind;
use crate::check;

/// Maximum clock difference between a token's issuer and this server, in seconds.
pub const LEEWAY: u64 = 30;
/// Maximum length of a token in bytes.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Verifies the tokens of one token key.
#[derive(Clone)]
pub struct Verifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

/// The claims of a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `sub`: the user.
    pub user: UserId,
    /// `name`, if there is one.
    pub name: Option<String>,
    /// `iat`, in whole seconds since the Unix epoch.
    pub issued_at: u64,
    /// `exp`, in whole seconds since the Unix epoch.
    pub expires_at: u64,
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invalid {
    /// It expired at its `exp`.
    Expired,
    /// Any other reason, as a sentence.
    Other(String),
}

impl Invalid {
    fn other(sentence: impl Into<String>) -> Self {
        Self::Other(sentence.into())
    }

    /// Returns the error for an invalid signature. It does not reveal whether the named key exists.
    pub fn bad_signature() -> Self {
        Self::other(
            "no token key signed this: its `kid` names none that is in force, or the algorithm or the signature is not that key's",
        )
    }
}

/// Returns whether a text has the three parts of a JWT.
pub fn is_jwt(text: &str) -> bool {
    text.split('.').count() == 3
}

/// Returns the token key that a token names, before the token is verified.
pub fn key_id(token: &str) -> Result<TokenKeyId, Invalid> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Invalid::other(format!(
            "the token is longer than {MAX_TOKEN_BYTES} bytes"
        )));
    }
    if SecretKind::is_key(token) {
        let kind = if token.starts_with("sk_") {
            "an app key"
        } else {
            "a key"
        };
        return Err(Invalid::other(format!(
            "this is {kind}: `connect` takes a user token"
        )));
    }
    let header = jsonwebtoken::decode_header(token)
        .map_err(|_| Invalid::other("the token is no JWT with an algorithm that is read here"))?;
    if header.crit.is_some() {
        return Err(Invalid::other(
            "the token's header has `crit`, which is not read here",
        ));
    }
    let kid = header.kid.ok_or_else(|| {
        Invalid::other("the token's header has no `kid`: the id of its token key")
    })?;
    kid.parse()
        .map_err(|_| Invalid::other("the token's `kid` is no id of a token key"))
}

impl Verifier {
    /// Returns a verifier for HS256. The UTF-8 bytes of the secret are the key.
    pub fn shared(secret: &[u8]) -> Self {
        Self {
            algorithm: Algorithm::HS256,
            key: DecodingKey::from_secret(secret),
        }
    }

    /// Returns a verifier for the other algorithms, with a public key in PEM (SPKI).
    ///
    /// # Errors
    /// Returns a sentence for the caller if the key cannot be read or is for another algorithm.
    pub fn public(algorithm: Algorithm, pem: &str) -> Result<Self, String> {
        let (check, wanted, read): (&'static dyn VerificationAlgorithm, _, fn(&[u8]) -> _) =
            match algorithm {
                Algorithm::HS256 => return Err("HS256 has no public key".into()),
                Algorithm::EdDSA => (&ED25519, "an Ed25519 key", DecodingKey::from_ed_pem),
                Algorithm::ES256 => (
                    &ECDSA_P256_SHA256_FIXED,
                    "a key on the curve P-256",
                    DecodingKey::from_ec_pem,
                ),
                Algorithm::RS256 => (
                    &RSA_PKCS1_2048_8192_SHA256,
                    "an RSA key of 2048 to 8192 bits",
                    DecodingKey::from_rsa_pem,
                ),
            };
        let parsed = pem::parse(pem).map_err(|_| "`public_key` is no PEM".to_owned())?;
        if parsed.tag().contains("PRIVATE") {
            return Err("`public_key` holds a private key: keep it, make a new pair, and give the public one".into());
        }
        if parsed.tag() != "PUBLIC KEY" {
            return Err(format!(
                "`public_key` is a PEM of `{}`, not of `PUBLIC KEY` (SPKI)",
                parsed.tag()
            ));
        }
        let unfit = || format!("`public_key` is not {wanted}");
        ParsedPublicKey::new(check, parsed.contents()).map_err(|_| unfit())?;
        if algorithm == Algorithm::RS256
            && !(2048..=8192).contains(&rsa_bits(parsed.contents()).ok_or_else(unfit)?)
        {
            return Err(unfit());
        }
        Ok(Self {
            algorithm,
            key: read(pem.as_bytes()).map_err(|_| unfit())?,
        })
    }

    /// Verifies a token at an instant (milliseconds since the Unix epoch). `longest` is the maximum
    /// of `exp − iat` in seconds; 0 means no maximum.
    pub fn check(&self, token: &str, now_ms: u64, longest: u64) -> Result<Claims, Invalid> {
        let algorithm = jwt(self.algorithm);
        let mut only_signature = Validation::new(algorithm);
        // Times are checked below, against the store's clock.
        only_signature.required_spec_claims.clear();
        (
            only_signature.validate_exp,
            only_signature.validate_nbf,
            only_signature.validate_aud,
        ) = (false, false, false);
        let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, &self.key, &only_signature);
        let claims = decoded.map_err(|_| Invalid::bad_signature())?;
        read_claims(&claims.claims, now_ms, longest)
    }
}

fn read_claims(claims: &Map<String, Value>, now_ms: u64, longest: u64) -> Result<Claims, Invalid> {
    if let Some(unknown) = claims.keys().find(|claim| claim.starts_with("chaos_")) {
        return Err(Invalid::other(format!(
            "the claim `{unknown}` is not known here"
        )));
    }
    let user = match claims.get("sub").and_then(Value::as_str) {
        Some(sub) => sub
            .parse()
            .map_err(|e| Invalid::other(format!("the claim `sub` is no user's id: {e}")))?,
        None => return Err(Invalid::other("the claim `sub` is missing or no text")),
    };
    let name = match claims.get("name") {
        None | Some(Value::Null) => None,
        // Becomes the user's `username`.
        Some(Value::String(name)) => match check::line("name", Some(name), check::NAME) {
            Ok(()) => Some(name.clone()).filter(|name| !name.is_empty()),
            Err(error) => {
                return Err(Invalid::other(format!(
                    "the claim `name` is not allowed: {}",
                    error.body.message
                )));
            }
        },
        Some(_) => return Err(Invalid::other("the claim `name` is no text")),
    };
    let issued_at =
        seconds(claims, "iat")?.ok_or_else(|| Invalid::other("the claim `iat` is missing"))?;
    let expires_at =
        seconds(claims, "exp")?.ok_or_else(|| Invalid::other("the claim `exp` is missing"))?;
    let not_before = seconds(claims, "nbf")?.unwrap_or(0);
    if expires_at <= issued_at {
        return Err(Invalid::other("the claim `exp` is not later than `iat`"));
    }
    if longest != 0 && expires_at - issued_at > longest {
        return Err(Invalid::other(format!(
            "the claim `exp` is later after `iat` than the limit `token_seconds` of {longest}"
        )));
    }
    let (issued, not_before_ms) = (issued_at * 1000, not_before * 1000);
    if issued > now_ms + LEEWAY * 1000 {
        return Err(Invalid::other("the claim `iat` is in the future"));
    }
    if not_before_ms > now_ms + LEEWAY * 1000 {
        return Err(Invalid::other("the claim `nbf` is in the future"));
    }
    if now_ms >= (expires_at + LEEWAY) * 1000 {
        return Err(Invalid::Expired);
    }
    Ok(Claims {
        user,
        name,
        issued_at,
        expires_at,
    })
}

/// A NumericDate (RFC 7519), which may have a fraction.
fn seconds(claims: &Map<String, Value>, claim: &str) -> Result<Option<u64>, Invalid> {
    /// The year 9999. Later instants in milliseconds might exceed the integers of the wire.
    const LAST: f64 = 253_402_300_799.0;
    match claims.get(claim) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(seconds) if (0.0..=LAST).contains(&seconds) => Ok(Some(seconds as u64)),
            _ => Err(Invalid::other(format!(
                "the claim `{claim}` is no number of seconds since 1970"
            ))),
        },
    }
}

/// Signs a token with a shared secret.
pub fn sign(
    key: &TokenKeyId,
    secret: &[u8],
    user: &UserId,
    issued_at: u64,
    expires_at: u64,
) -> String {
    let header = Header {
        kid: Some(key.to_string()),
        ..Header::new(jsonwebtoken::Algorithm::HS256)
    };
    let claims = serde_json::json!({ "sub": user, "iat": issued_at, "exp": expires_at });
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret))
        .expect("HMAC signs anything")
}

fn jwt(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::HS256 => jsonwebtoken::Algorithm::HS256,
        Algorithm::EdDSA => jsonwebtoken::Algorithm::EdDSA,
        Algorithm::ES256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::RS256 => jsonwebtoken::Algorithm::RS256,
    }
}

fn rsa_bits(spki: &[u8]) -> Option<usize> {
    let key = aws_lc_rs::rsa::PublicKey::from_der(spki).ok()?;
    let modulus = key.modulus();
    let bytes = modulus.big_endian_without_leading_zero();
    Some(bytes.len() * 8 - bytes.first()?.leading_zeros() as usize)
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
    use proptest::prelude::*;

    use super::*;

    fn part(text: &str) -> String {
        BASE64.encode(text)
    }

    /// JSON, and text that is almost JSON.
    fn json() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            Just("sub"),
            Just("iat"),
            Just("exp"),
            Just("nbf"),
            Just("name"),
            Just("kid"),
            Just("alg"),
            Just("chaos_x")
        ];
        let value = prop_oneof![
            any::<i64>().prop_map(|n| n.to_string()),
            any::<u64>().prop_map(|n| n.to_string()),
            any::<f64>().prop_map(|n| n.to_string()),
            ".{0,20}".prop_map(|text| serde_json::Value::from(text).to_string()),
            Just("\"HS256\"".to_owned()),
            Just("\"tk_0123456789abcdef\"".to_owned()),
            Just("null".to_owned()),
            Just("[{}]".to_owned()),
        ];
        let fields = proptest::collection::vec(
            (word, value).prop_map(|(word, value)| format!("\"{word}\":{value}")),
            0..8,
        );
        prop_oneof![
            fields.prop_map(|fields| format!("{{{}}}", fields.join(","))),
            ".{0,40}"
        ]
    }

    proptest! {
        #[test]
        fn whatever_comes_is_refused_without_panic(text in ".{0,200}", header in json(), claims in json()) {
            let key = Verifier::shared(b"secret");
            let crafted = format!("{}.{}.{}", part(&header), part(&claims), part("x"));
            for token in [&text, &crafted] {
                let _ = key_id(token);
                prop_assert!(key.check(token, 1_700_000_000_000, 0).is_err());
            }
            let _ = Verifier::public(Algorithm::RS256, &text);
        }

        #[test]
        fn claims_of_any_kind_are_read_without_panic(claims in json(), now in any::<u32>(), longest in any::<u64>()) {
            if let Ok(Value::Object(claims)) = serde_json::from_str(&claims)
                && let Ok(read) = read_claims(&claims, u64::from(now) * 1000, longest)
            {
                prop_assert!(read.expires_at > read.issued_at && read.expires_at + LEEWAY > u64::from(now));
            }
        }

        #[test]
        fn a_name_that_no_user_may_have_is_refused_with_the_token(name in prop_oneof!["a[\\x00-\\x1f]b", Just("a\u{202e}b".to_owned()), "[a-z]{201,220}"]) {
            let claims = serde_json::json!({ "sub": "alice", "iat": 1_000, "exp": 2_000, "name": name });
            let read = read_claims(claims.as_object().expect("it is one"), 1_500_000, 0);
            prop_assert!(matches!(read, Err(Invalid::Other(_))), "{:?}", read);
        }

        #[test]
        fn what_is_signed_is_read_again(user in "[a-z0-9]{1,64}", now in 1_000_000_000u64..4_000_000_000, seconds in 1u64..1_000_000) {
            let (user, id) = (user.parse::<UserId>().expect("it fits"), TokenKeyId::from_bits(seconds));
            let token = sign(&id, b"secret", &user, now, now + seconds);
            prop_assert_eq!(key_id(&token), Ok(id));
            let read = Verifier::shared(b"secret").check(&token, now * 1000, 0);
            prop_assert_eq!(read, Ok(Claims { user, name: None, issued_at: now, expires_at: now + seconds }));
            prop_assert!(Verifier::shared(b"secres").check(&token, now * 1000, 0).is_err());
        }
    }
}
