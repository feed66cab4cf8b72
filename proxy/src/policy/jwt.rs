//! JSON web tokens: where they are, what they say, and whether a key confirms it.
//!
//! Pure: keys and the time come in. Signatures are checked by the cryptographic library of the TLS stack. Tokens are
//! hostile: nothing in one is believed before its signature is, and all of it is bounded by the request's own limits.

mod keys;
mod locate;
mod token;

#[cfg(test)]
mod tests;

pub use keys::Jwks;
pub use locate::{Found, Location, locate};
pub use token::Token;

macro_rules! failures {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Why a token does not count, in Envoy's words and with its numbers.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Failure { $($(#[$doc])* $name,)* }

        impl Failure {
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            pub fn code(self) -> u32 {
                match self { $(Self::$name => $code,)* }
            }
        }
    };
}

failures! {
    Missed = 1, "Jwt is missing";
    NotYetValid = 2, "Jwt not yet valid";
    Expired = 3, "Jwt is expired";
    BadFormat = 4, "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections";
    HeaderBase64 = 5, "Jwt header is an invalid Base64url encoded";
    HeaderJson = 6, "Jwt header is an invalid JSON";
    HeaderAlg = 7, "Jwt header [alg] field is required and must be a string";
    AlgNotImplemented = 8, "Jwt header [alg] is not supported";
    HeaderKid = 9, "Jwt header [kid] field is not a string";
    PayloadBase64 = 10, "Jwt payload is an invalid Base64url encoded";
    PayloadJson = 11, "Jwt payload is an invalid JSON";
    Iss = 12, "Jwt payload [iss] field is not a string";
    Sub = 13, "Jwt payload [sub] field is not a string";
    IatType = 14, "Jwt payload [iat] field is not an integer";
    IatRange = 15, "Jwt payload [iat] field is not a positive 64 bit integer";
    NbfType = 16, "Jwt payload [nbf] field is not an integer";
    NbfRange = 17, "Jwt payload [nbf] field is not a positive 64 bit integer";
    ExpType = 18, "Jwt payload [exp] field is not an integer";
    ExpRange = 19, "Jwt payload [exp] field is not a positive 64 bit integer";
    Jti = 20, "Jwt payload [jti] field is not a string";
    Aud = 21, "Jwt payload [aud] field is not a string or string list";
    SignatureBase64 = 22, "Jwt signature is an invalid Base64url encoded";
    Ed25519Length = 23, "Jwt ED25519 signature is wrong length";
    UnknownIssuer = 24, "Jwt issuer is not configured";
    AudienceNotAllowed = 25, "Audiences in Jwt are not allowed";
    VerificationFail = 26, "Jwt verification fails";
    NoKeys = 31, "Jwks doesn't have any valid public key";
    KidAlgMismatch = 32, "Jwks doesn't have key to match kid or alg from Jwt";
    Fetch = 33, "Jwks remote fetch is failed";
}
