//! What is believed of a request's fields, and of whom: gunicorn's rules, and `--forwarded-fields`.
//!
//! The one thing to know: what a field may do goes by its name alone and is kept with it (see [`names`](super::names)); who sent it is known
//! of the connection. So a request pays for a rule only where it has a field that one is about. Nothing here knows Python.

use mlws_http1::{Forwarded, ForwardedField};
use mlws_server::TrustedNetworks;

/// What was said on the command line.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    /// Who is believed; here only to know proxies behind the nearest one.
    pub(crate) trusted: TrustedNetworks,
    /// Name, and the value that means https.
    pub(crate) scheme_fields: Vec<(String, String)>,
    /// Names with underscores, or `*`.
    pub(crate) forwarder_fields: Vec<String>,
    pub(crate) header_map: HeaderMap,
    /// `SCRIPT_NAME` where no proxy says another; no slash at its end.
    pub(crate) root: String,
    /// Those listed. Empty: what a proxy says in them is the application's business.
    pub(crate) forwarded_fields: Vec<ForwardedField>,
}

/// What is done with a name that has an underscore.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum HeaderMap {
    #[default]
    Drop,
    /// The whole request with it.
    Refuse,
    Dangerous,
}

/// What a field may do that is not like all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) take: Take,
    says: Says,
}

/// Whether it gets into the environ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    Always,
    FromTrusted,
    FromTrustedOrRefuse,
    Refuse,
    Never,
}

/// What else it says, from a proxy that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Nothing,
    /// By the scheme field of this index.
    Scheme(usize),
    ScriptName,
    Forwarded(ForwardedField),
}

/// A request is refused: with this status, and a sentence for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) why: &'static str,
}

impl Refused {
    const UNDERSCORE: Self = Self { status: 400, why: "a header has an underscore in its name" };
    const SCHEME: Self = Self { status: 400, why: "the proxy contradicts itself about the scheme" };
    const FORWARDED: Self =
        Self { status: 400, why: "what the proxy says of the request is not valid or contradicts itself" };
    const OUTSIDE: Self = Self { status: 500, why: "the path does not begin with SCRIPT_NAME" };
}

impl Proxies {
    /// The rule for a field of this name; nothing where it is like all others.
    pub(crate) fn rule(&self, name: &[u8]) -> Option<Rule> {
        let rule = |take, says| Some(Rule { take, says });
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if is("proxy") {
            return rule(Take::Never, Says::Nothing); // `HTTP_PROXY`, which programs obey as a setting
        }
        let has_underscore = name.contains(&b'_');
        if let Some(field) = ForwardedField::from_name(name).filter(|_| !self.forwarded_fields.is_empty()) {
            return match self.header_map {
                _ if !has_underscore && self.forwarded_fields.contains(&field) => {
                    rule(Take::FromTrusted, Says::Forwarded(field))
                }
                HeaderMap::Refuse if has_underscore => rule(Take::Refuse, Says::Nothing),
                _ => rule(Take::Never, Says::Nothing),
            };
        }
        let is_forwarder = self.forwarder_fields.iter().any(|other| is(other) || other == "*");
        let scheme = self.scheme_fields.iter().position(|(other, _)| is(other));
        let says = match scheme {
            Some(index) => Says::Scheme(index),
            None if is_forwarder && is("script_name") => Says::ScriptName,
            None => Says::Nothing,
        };
        let take = match (self.header_map, is_forwarder) {
            _ if !has_underscore => Take::Always,
            (HeaderMap::Dangerous, _) => Take::Always,
            (HeaderMap::Drop, true) => Take::FromTrusted,
            (HeaderMap::Drop, false) => Take::Never,
            (HeaderMap::Refuse, true) => Take::FromTrustedOrRefuse,
            (HeaderMap::Refuse, false) => Take::Refuse,
        };
        if (take, says) == (Take::Always, Says::Nothing) { None } else { rule(take, says) }
    }
}

/// What the fields of one request have said so far.
#[derive(Debug, Default)]
pub(crate) struct Heard<'a> {
    pub(crate) https: Option<bool>,
    script: Option<&'a [u8]>,
    forwarded: Vec<(ForwardedField, &'a [u8])>,
}

impl<'a> Heard<'a> {
    /// Hears one field that there is a rule for. Whether it gets into the environ.
    pub(crate) fn hear(
        &mut self,
        proxies: &Proxies,
        rule: Rule,
        value: &'a [u8],
        is_from_trusted: bool,
    ) -> Result<bool, Refused> {
        if is_from_trusted {
            match rule.says {
                Says::Nothing => {}
                Says::Scheme(index) => {
                    let secure = proxies.scheme_fields.get(index).map(|(_, secure)| secure.as_bytes());
                    self.agree(secure == Some(value))?;
                }
                Says::ScriptName => self.script = Some(value),
                Says::Forwarded(field) => self.forwarded.push((field, value)),
            }
        }
        match rule.take {
            Take::Always => Ok(true),
            Take::FromTrusted => Ok(is_from_trusted),
            Take::FromTrustedOrRefuse if is_from_trusted => Ok(true),
            Take::Never => Ok(false),
            Take::FromTrustedOrRefuse | Take::Refuse => Err(Refused::UNDERSCORE),
        }
    }

    fn agree(&mut self, https: bool) -> Result<(), Refused> {
        let before = self.https.replace(https);
        if before.is_some_and(|before| before != https) { Err(Refused::SCHEME) } else { Ok(()) }
    }

    /// All fields are heard: what those of `--forwarded-fields` say together, if there are any.
    pub(crate) fn forwarded(&mut self, proxies: &Proxies) -> Result<Option<Forwarded<'a>>, Refused> {
        if self.forwarded.is_empty() {
            return Ok(None);
        }
        let is_proxy = |address| proxies.trusted.contains_explicitly(address);
        let said = Forwarded::parse(&self.forwarded, is_proxy).map_err(|_| Refused::FORWARDED)?;
        said.https.map_or(Ok(()), |https| self.agree(https))?;
        Ok(Some(said))
    }

    /// Which part of the path is not the application's, and which is.
    pub(crate) fn cut<'b>(
        &self,
        proxies: &'b Proxies,
        path: &'b [u8],
    ) -> Result<(&'b [u8], &'b [u8]), Refused>
    where
        'a: 'b,
    {
        let mut script = self.script.unwrap_or(proxies.root.as_bytes());
        while let [rest @ .., b'/'] = script {
            script = rest;
        }
        match path.strip_prefix(script) {
            Some(rest @ ([] | [b'/', ..])) => Ok((script, rest)),
            Some(rest) if script.is_empty() => Ok((script, rest)),
            _ => Err(Refused::OUTSIDE),
        }
    }
}

/// Host and port of an authority, which is a good one.
pub(crate) fn split_port(authority: &[u8]) -> (&[u8], Option<&[u8]>) {
    match authority.iter().rposition(|byte| b":]".contains(byte)) {
        Some(at) if authority[at] == b':' => {
            (&authority[..at], Some(&authority[at + 1..]).filter(|port| !port.is_empty()))
        }
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual() -> Proxies {
        let scheme_fields = [("X-FORWARDED-PROTO", "https"), ("X-FORWARDED-SSL", "on")];
        Proxies {
            scheme_fields: scheme_fields.map(|(name, value)| (name.into(), value.into())).into(),
            forwarder_fields: vec!["SCRIPT_NAME".into(), "REMOTE_USER".into()],
            ..Proxies::default()
        }
    }

    /// Which of the fields get into the environ, and the scheme.
    fn hear(
        proxies: &Proxies,
        fields: &[(&str, &str)],
        is_from_trusted: bool,
    ) -> Result<(Vec<String>, Option<bool>), u16> {
        let (mut heard, mut taken) = (Heard::default(), Vec::new());
        for (name, value) in fields {
            let taken_in = match proxies.rule(name.as_bytes()) {
                None => Ok(true),
                Some(rule) => heard.hear(proxies, rule, value.as_bytes(), is_from_trusted),
            };
            if taken_in.map_err(|refused| refused.status)? {
                taken.push((*name).to_owned());
            }
        }
        heard.forwarded(proxies).map_err(|refused| refused.status)?;
        Ok((taken, heard.https))
    }

    #[test]
    fn a_scheme_is_believed_of_proxies_and_may_not_be_contradicted() {
        let proxies = usual();
        let scheme = |fields: &[_], trusted| hear(&proxies, fields, trusted).map(|(_, https)| https);
        let (https, http, on) =
            (("x-forwarded-proto", "https"), ("X-Forwarded-Proto", "http"), ("X-Forwarded-SSL", "on"));
        assert_eq!(scheme(&[https, on, https], true), Ok(Some(true)));
        assert_eq!(scheme(&[("X-Forwarded-Proto", "HTTPS")], true), Ok(Some(false)));
        assert_eq!(scheme(&[http, on], true), Err(400));
        assert_eq!(scheme(&[https, http], true), Err(400));
        assert_eq!(scheme(&[http, on, https], false), Ok(None));
    }

    #[test]
    fn underscores_are_for_proxies_and_as_the_header_map_says() {
        let fields = [("Script_Name", ""), ("X_Other", ""), ("X-Good", "")];
        for (header_map, trusted, others) in [
            (HeaderMap::Drop, Ok(vec!["Script_Name", "X-Good"]), Ok(vec!["X-Good"])),
            (HeaderMap::Refuse, Err(400), Err(400)),
            (
                HeaderMap::Dangerous,
                Ok(vec!["Script_Name", "X_Other", "X-Good"]),
                Ok(vec!["Script_Name", "X_Other", "X-Good"]),
            ),
        ] {
            let proxies = Proxies { header_map, ..usual() };
            let taken = |is_from_trusted| hear(&proxies, &fields, is_from_trusted).map(|(taken, _)| taken);
            let text = |names: Result<Vec<&str>, u16>| {
                names.map(|names| names.iter().map(ToString::to_string).collect())
            };
            assert_eq!((taken(true), taken(false)), (text(trusted), text(others)), "{header_map:?}");
        }
        let refuse = Proxies { header_map: HeaderMap::Refuse, ..usual() };
        assert!(hear(&refuse, &fields[..1], true).is_ok() && hear(&refuse, &fields[..1], false).is_err());
        let all = Proxies { forwarder_fields: vec!["*".into()], ..usual() };
        assert_eq!(hear(&all, &fields, true).unwrap().0.len(), 3);
    }

    #[test]
    fn of_the_forwarded_fields_only_those_listed_are_seen_and_only_from_proxies() {
        let listed = vec![ForwardedField::For, ForwardedField::Proto];
        let proxies = Proxies { forwarded_fields: listed, forwarder_fields: vec!["*".into()], ..usual() };
        let fields = [
            ("x-forwarded-FOR", "1.2.3.4"),
            ("X_Forwarded_For", "6.6.6.6"),
            ("X-Forwarded-Host", "evil"),
            ("Forwarded", "for=6.6.6.6"),
            ("X-Forwarded-Proto", "HTTPS"),
        ];
        let (taken, https) = hear(&proxies, &fields, true).unwrap();
        assert_eq!((taken, https), (vec!["x-forwarded-FOR".into(), "X-Forwarded-Proto".into()], Some(true)));
        assert_eq!(hear(&proxies, &fields, false), Ok((vec![], None)));
        assert_eq!(hear(&proxies, &[("X-Forwarded-Ssl", "off"), fields[4]], true), Err(400));
        assert_eq!(hear(&proxies, &[("X-Forwarded-For", "rubbish")], true), Err(400));
        let silent = Proxies { forwarded_fields: vec![ForwardedField::For], ..usual() };
        assert_eq!(
            hear(&silent, &fields[4..], true),
            Ok((vec![], None)),
            "one that is not listed says nothing"
        );
    }

    #[test]
    fn the_script_name_is_cut_off_at_a_slash() {
        let proxies = Proxies { root: "/root".into(), ..usual() };
        let cut = |script: Option<&'static str>, path| {
            let heard = Heard { script: script.map(str::as_bytes), ..Heard::default() };
            heard.cut(&proxies, path).map_err(|refused| refused.status)
        };
        for (script, path, parts) in [
            (None, "/root/a", Ok(("/root", "/a"))),
            (None, "/root", Ok(("/root", ""))),
            (None, "/", Err(500)),
            (Some("/shop"), "/shop/root", Ok(("/shop", "/root"))),
            (Some("/shop/"), "/shop/", Ok(("/shop", "/"))),
            (Some("/shop"), "/shopping", Err(500)),
            (Some("/shop"), "/Shop/", Err(500)),
            (Some("shop"), "/shop", Err(500)),
            (Some("/"), "/a", Ok(("", "/a"))),
            (Some(""), "*", Ok(("", "*"))),
        ] {
            let parts = parts.map(|(script, rest): (&str, &str)| (script.as_bytes(), rest.as_bytes()));
            assert_eq!(cut(script, path.as_bytes()), parts, "{script:?} {path}");
        }
    }

    #[test]
    fn a_port_is_split_off_its_host() {
        for (authority, host, port) in [
            ("a", "a", None),
            ("a:", "a", None),
            ("a:81", "a", Some("81")),
            ("[::1]", "[::1]", None),
            ("[::1]:81", "[::1]", Some("81")),
        ] {
            assert_eq!(
                split_port(authority.as_bytes()),
                (host.as_bytes(), port.map(str::as_bytes)),
                "{authority}"
            );
        }
    }
}
