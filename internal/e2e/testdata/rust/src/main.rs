//! One request of one of Rust's clients: plain reqwest|ureq. What to ask stands in the environment.
use std::env::{args, var};
use std::error::Error;
use std::io::{copy, stdout};

fn main() -> Result<(), Box<dyn Error>> {
    let (method, url, body) = (var("METHOD")?, var("URL")?, var("BODY")?);
    let bearer = format!("Bearer {}", var("TOKEN")?);
    if args().nth(1).as_deref() == Some("ureq") {
        use ureq::tls::{RootCerts, TlsConfig};
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let agent = ureq::Agent::config_builder().tls_config(tls).http_status_as_error(false).build().new_agent();
        let request = ureq::http::Request::builder().method(method.as_str()).uri(url).header("authorization", bearer).body(body)?;
        let mut answer = agent.run(request)?;
        copy(&mut answer.body_mut().as_reader(), &mut stdout())?;
        return Ok(());
    }
    let client = reqwest::blocking::Client::builder().timeout(None).build()?;
    let mut answer = client.request(method.parse()?, url).header("authorization", bearer).body(body).send()?;
    copy(&mut answer, &mut stdout())?;
    Ok(())
}
