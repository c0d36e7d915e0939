//! OpenSSL's cipher strings (openssl-ciphers(1)), applied to the nine suites of rustls.
//!
//! As in OpenSSL, a string selects suites of TLS 1.2. Those of TLS 1.3 stay enabled unless the string names some of them.

use rustls::{CipherSuite, SupportedCipherSuite};

use crate::error::TlsError;

/// OpenSSL's name of a suite, and the words that select it.
struct Suite {
    id: CipherSuite,
    name: &'static str,
    words: &'static [&'static str],
}

macro_rules! suite {
    ($id:ident, $name:literal, $($word:literal),*) => {
        Suite { id: CipherSuite::$id, name: $name, words: &[$($word),*] }
    };
}

const SUITES: &[Suite] = &[
    suite!(TLS13_AES_256_GCM_SHA384, "TLS_AES_256_GCM_SHA384", "TLSv1.3"),
    suite!(TLS13_AES_128_GCM_SHA256, "TLS_AES_128_GCM_SHA256", "TLSv1.3"),
    suite!(TLS13_CHACHA20_POLY1305_SHA256, "TLS_CHACHA20_POLY1305_SHA256", "TLSv1.3"),
    suite!(
        TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "aECDSA",
        "ECDSA",
        "AES",
        "AESGCM",
        "AES256",
        "SHA384"
    ),
    suite!(
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "aECDSA",
        "ECDSA",
        "AES",
        "AESGCM",
        "AES128",
        "SHA256"
    ),
    suite!(
        TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "aECDSA",
        "ECDSA",
        "CHACHA20",
        "SHA256"
    ),
    suite!(
        TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-RSA-AES256-GCM-SHA384",
        "aRSA",
        "AES",
        "AESGCM",
        "AES256",
        "SHA384"
    ),
    suite!(
        TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-RSA-AES128-GCM-SHA256",
        "aRSA",
        "AES",
        "AESGCM",
        "AES128",
        "SHA256"
    ),
    suite!(
        TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-RSA-CHACHA20-POLY1305",
        "aRSA",
        "CHACHA20",
        "SHA256"
    ),
];

/// Words that select every suite of TLS 1.2.
const ALL: &[&str] =
    &["ALL", "DEFAULT", "HIGH", "TLSv1.2", "ECDHE", "EECDH", "kECDHE", "kEECDH", "kEDH+kECDHE", "ECDH"];

/// Known words that select no suite of rustls.
const NONE: &[&str] = &[
    "3DES",
    "ADH",
    "AECDH",
    "AESCCM",
    "AESCCM8",
    "ARIA",
    "ARIA128",
    "ARIA256",
    "ARIAGCM",
    "CAMELLIA",
    "CAMELLIA128",
    "CAMELLIA256",
    "COMPLEMENTOFALL",
    "COMPLEMENTOFDEFAULT",
    "DES",
    "DH",
    "DHE",
    "DSS",
    "EDH",
    "EXP",
    "EXPORT",
    "GOST",
    "IDEA",
    "KRB5",
    "LOW",
    "MD5",
    "MEDIUM",
    "NULL",
    "PSK",
    "RC2",
    "RC4",
    "RSA",
    "SEED",
    "SHA",
    "SHA1",
    "SRP",
    "SSLv2",
    "SSLv3",
    "TLSv1",
    "TLSv1.0",
    "TLSv1.1",
    "aDSS",
    "aNULL",
    "aPSK",
    "eNULL",
    "kDHE",
    "kDHEPSK",
    "kDHd",
    "kDHr",
    "kECDHr",
    "kECDHe",
    "kEDH",
    "kPSK",
    "kRSA",
    "kRSAPSK",
    "kSRP",
];

/// OpenSSL's name of a suite.
pub(crate) fn openssl_name(suite: CipherSuite) -> String {
    let known = SUITES.iter().find(|known| known.id == suite);
    known.map_or_else(|| format!("{suite:?}"), |known| known.name.to_owned())
}

/// Selects from `available` by OpenSSL's cipher string. Returns the suites in the order of preference, and a warning for each word
/// that is unknown.
///
/// # Errors
///
/// If no suite is left.
pub(crate) fn select(
    text: &str,
    available: &[SupportedCipherSuite],
) -> Result<(Vec<SupportedCipherSuite>, Vec<String>), TlsError> {
    let (mut selected, mut removed): (Vec<&Suite>, Vec<&Suite>) = (Vec::new(), Vec::new());
    let mut warnings = Vec::new();
    for element in
        text.split([':', ',', ' ']).filter(|element| !element.is_empty() && !element.starts_with('@'))
    {
        let words = element.strip_prefix(['!', '-', '+']).unwrap_or(element);
        let operator = &element[..element.len() - words.len()];
        if let Some(unknown) = words.split('+').find(|word| !is_known(word)) {
            warnings.push(format!("unknown cipher '{unknown}' is ignored"));
            continue;
        }
        let matching: Vec<_> =
            SUITES.iter().filter(|suite| words.split('+').all(|word| suite.has(word))).collect();
        let matches = |suite: &Suite| matching.iter().any(|other| other.id == suite.id);
        match operator {
            "" => {
                let is_new =
                    |suite: &&Suite| !selected.iter().chain(&removed).any(|other| other.id == suite.id);
                let new: Vec<_> = matching.iter().copied().filter(is_new).collect();
                selected.extend(new);
            }
            "+" => {
                let (moved, kept): (Vec<_>, Vec<_>) = selected.into_iter().partition(|suite| matches(suite));
                selected = kept.into_iter().chain(moved).collect();
            }
            operator => {
                selected.retain(|suite| !matches(suite));
                if operator == "!" {
                    removed.extend(matching);
                }
            }
        }
    }
    let is_tls13 = |suite: &Suite| suite.words == ["TLSv1.3"];
    if selected.iter().any(|suite| !is_tls13(suite)) && !selected.iter().any(|suite| is_tls13(suite)) {
        let remaining = SUITES
            .iter()
            .filter(|suite| is_tls13(suite) && !removed.iter().any(|other| other.id == suite.id));
        selected.splice(..0, remaining);
    }
    let suites: Vec<_> = selected
        .iter()
        .filter_map(|suite| available.iter().copied().find(|supported| supported.suite() == suite.id))
        .collect();
    if suites.is_empty() {
        let names: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        return Err(TlsError(format!(
            "ciphers '{text}': no cipher suite is left; supported are {}",
            names.join(", ")
        )));
    }
    Ok((suites, warnings))
}

fn is_known(word: &str) -> bool {
    ALL.contains(&word)
        || NONE.contains(&word)
        || SUITES.iter().any(|suite| suite.name == word || suite.words.contains(&word))
}

impl Suite {
    fn has(&self, word: &str) -> bool {
        let is_tls12 = self.words != ["TLSv1.3"];
        self.name == word || self.words.contains(&word) || (is_tls12 && ALL.contains(&word))
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;

    use super::*;

    fn selected(text: &str) -> (Vec<String>, usize) {
        let (suites, warnings) = select(text, ALL_CIPHER_SUITES).unwrap();
        let tls12 = suites.iter().filter(|suite| suite.tls13().is_none());
        (tls12.map(|suite| openssl_name(suite.suite())).collect(), warnings.len())
    }

    #[test]
    fn every_suite_of_the_library_has_a_name() {
        for suite in ALL_CIPHER_SUITES {
            assert!(SUITES.iter().any(|known| known.id == suite.suite()), "{suite:?}");
        }
    }

    #[test]
    fn a_string_selects_suites_as_in_openssl() {
        let one = "ECDHE-RSA-AES128-GCM-SHA256";
        assert_eq!(selected(one), (vec![one.into()], 0));
        assert_eq!(selected("HIGH:!aNULL:!MD5").0.len(), 6);
        assert_eq!(selected("ECDHE+AESGCM:!aECDSA").0, ["ECDHE-RSA-AES256-GCM-SHA384", one]);
        assert_eq!(selected("ECDHE+CHACHA20:ECDHE+AESGCM").0[0], "ECDHE-ECDSA-CHACHA20-POLY1305");
        assert_eq!(selected("ALL:+aECDSA").0[0], "ECDHE-RSA-AES256-GCM-SHA384");
        assert_eq!(selected("ALL:-AES:@STRENGTH").0.len(), 2);
        assert_eq!(selected("!AES:ALL").0.len(), 2);
        assert_eq!(selected(&format!("{one}:DHE-RSA-AES128-SHA")), (vec![one.into()], 1));
        assert_eq!(selected(&format!("\u{fffd}+AES:{one}:-\u{e9}")), (vec![one.into()], 2));
    }

    #[test]
    fn tls_1_3_stays_enabled_unless_its_suites_are_named() {
        let tls13 = |text| {
            select(text, ALL_CIPHER_SUITES).unwrap().0.iter().filter(|suite| suite.tls13().is_some()).count()
        };
        assert_eq!(
            (tls13("HIGH"), tls13("TLS_AES_128_GCM_SHA256"), tls13("HIGH:TLS_AES_128_GCM_SHA256")),
            (3, 1, 1)
        );
    }

    #[test]
    fn a_string_without_a_supported_suite_is_an_error() {
        for text in ["", "RC4", "ALL:!ALL", "kRSA", "nonsense"] {
            assert!(
                select(text, ALL_CIPHER_SUITES).unwrap_err().to_string().contains("no cipher suite is left"),
                "{text}"
            );
        }
    }
}
