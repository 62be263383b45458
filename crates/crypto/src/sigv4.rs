//! AWS Signature Version 4: what a request to AWS carries in place of the secret access key.
//!
//! Signs one request whose path and query are percent-encoded already. It reads no clock and sends nothing.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::sensitive::SecretBytes;
use crate::text::to_hex;

/// A request to sign, and what its signature is good for.
#[derive(Debug, Clone, Copy)]
pub struct AwsRequest<'r> {
    /// `GET` or `POST`.
    pub method: &'r str,
    /// Host, with the port where it is not the usual one.
    pub host: &'r str,
    /// Path and query, percent-encoded (RFC 3986).
    pub target: &'r str,
    /// Body.
    pub body: &'r [u8],
    /// Region, `us-east-1`.
    pub region: &'r str,
    /// Code of the service, `sts`.
    pub service: &'r str,
    /// Now, in UTC, as `20150830T123600Z`; AWS takes a signature for a few minutes.
    pub time: &'r str,
}

/// What proves a request to AWS.
#[derive(Debug)]
pub struct AwsCredentials {
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: SecretBytes,
    /// Session token, where the credentials are temporary.
    pub session_token: Option<SecretBytes>,
}

/// Signs a request; gives the headers to add to it, beside `host`.
pub fn sign_aws(
    request: &AwsRequest<'_>,
    credentials: &AwsCredentials,
) -> Vec<(&'static str, Zeroizing<Vec<u8>>)> {
    let mut headers = vec![("x-amz-date", Zeroizing::new(request.time.as_bytes().to_vec()))];
    if let Some(token) = &credentials.session_token {
        // EXPOSE: AWS wants the session token as a header.
        let token = token.expose(|token| Zeroizing::new(token.clone()));
        headers.push(("x-amz-security-token", token));
    }
    let mut names = "host".to_owned();
    headers.iter().for_each(|(name, _)| {
        names.push(';');
        names.push_str(name);
    });
    let day = request.time.get(..8).unwrap_or_default();
    let scope = format!("{day}/{}/{}/aws4_request", request.region, request.service);
    let canonical = digest(&SHA256, &canonical(request, &headers, &names));
    let text = format!("{ALGORITHM}\n{}\n{scope}\n{}", request.time, to_hex(canonical.as_ref()));
    let signature = to_hex(mac(&signing_key(request, credentials, day), text.as_bytes()).as_ref());
    let id = &credentials.access_key_id;
    let authorization =
        format!("{ALGORITHM} Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}");
    headers.push(("authorization", Zeroizing::new(authorization.into_bytes())));
    headers
}

/// The request in the one form that both sides sign.
fn canonical(
    request: &AwsRequest<'_>,
    headers: &[(&str, Zeroizing<Vec<u8>>)],
    names: &str,
) -> Zeroizing<Vec<u8>> {
    let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
    let mut parameters: Vec<String> = query
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| if parameter.contains('=') { parameter.to_owned() } else { format!("{parameter}=") })
        .collect();
    parameters.sort_unstable();
    // Erased as a whole: what it grew out of would not be.
    let mut text = Zeroizing::new(Vec::with_capacity(CANONICAL_BYTES));
    text.extend_from_slice(request.method.as_bytes());
    for line in [path, &parameters.join("&")] {
        text.push(b'\n');
        text.extend_from_slice(line.as_bytes());
    }
    text.extend_from_slice(b"\nhost:");
    text.extend_from_slice(request.host.as_bytes());
    for (name, value) in headers {
        text.push(b'\n');
        text.extend_from_slice(name.as_bytes());
        text.push(b':');
        text.extend_from_slice(value);
    }
    text.extend_from_slice(b"\n\n");
    text.extend_from_slice(names.as_bytes());
    text.push(b'\n');
    text.extend_from_slice(to_hex(digest(&SHA256, request.body).as_ref()).as_bytes());
    text
}

/// The key of a day, a region and a service.
fn signing_key(request: &AwsRequest<'_>, credentials: &AwsCredentials, day: &str) -> hmac::Tag {
    // EXPOSE: the secret access key begins the chain that ends in the signature.
    let first = credentials.secret_access_key.expose(|secret| {
        let mut key = Zeroizing::new(Vec::with_capacity(secret.len() + 4));
        key.extend_from_slice(b"AWS4");
        key.extend_from_slice(secret);
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), day.as_bytes())
    });
    [request.region, request.service, "aws4_request"]
        .into_iter()
        .fold(first, |key, part| mac(&key, part.as_bytes()))
}

fn mac(key: &hmac::Tag, text: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()), text)
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// More than a request with the longest session token has, so that writing it moves nothing.
const CANONICAL_BYTES: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::{field, read, secret};

    /// `testkit/vectors/make_sigv4.py` made them with botocore, which shares no code with this.
    #[test]
    fn signatures_are_those_of_botocore() {
        let rows = read("sigv4");
        let rows = rows.as_array().unwrap();
        assert!(rows.len() >= 6);
        for row in rows {
            let request = AwsRequest {
                method: field(row, "method"),
                host: field(row, "host"),
                target: field(row, "target"),
                body: field(row, "body").as_bytes(),
                region: field(row, "region"),
                service: field(row, "service"),
                time: field(row, "time"),
            };
            let credentials = AwsCredentials {
                access_key_id: field(row, "access_key_id").to_owned(),
                secret_access_key: secret(field(row, "secret_access_key")),
                session_token: row["session_token"].as_str().map(secret),
            };
            let headers = sign_aws(&request, &credentials);
            let (_, authorization) = headers.last().unwrap();
            assert_eq!(String::from_utf8_lossy(authorization), field(row, "authorization"), "{row}");
        }
    }
}
