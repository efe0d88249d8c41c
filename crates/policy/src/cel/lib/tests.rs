//! What the functions compute, held against what the libraries of Kubernetes and CEL document: tables with the answer written out, errors too.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::TABLE;
use crate::cel::{
    check::check,
    eval::Outcome,
    eval_tests::{TYPED, session},
    meter::{Limits, MAX_STEPS},
    program::{self, Program},
    ty::Ty,
};

const AMPLE: Limits = Limits { steps: MAX_STEPS, time: std::time::Duration::from_secs(20) };

fn program_of(text: &str, ty: &Ty) -> Program {
    let parsed = program::parse(text).unwrap_or_else(|f| panic!("{text}: {f:?}"));
    assert_eq!(check(&parsed, ty), vec![], "{text}");
    let program = program::finish(parsed).unwrap();
    assert!(program.code.is_ok(), "{text}: {:?}", program.code);
    program
}

/// What both evaluators make of an expression; the arguments are of any type.
fn outcome(text: &str, args: &Json) -> Outcome {
    let program = program_of(text, &Ty::Dyn);
    let compiled = session(args, AMPLE).eval(&program);
    let cel = session(args, AMPLE).interpreted(&program);
    match (&compiled, &cel) {
        (Outcome::Error(_), Outcome::Error(_)) => {}
        _ => assert_eq!(compiled, cel, "{text}"),
    }
    compiled
}

/// `Some(text)`: it equals that expression. None: it is an error.
fn holds(table: &[(&str, Option<&str>)]) {
    for (text, want) in table {
        match want {
            Some(want) => assert_eq!(outcome(&format!("({text}) == ({want})"), &json!({})), Outcome::Holds, "{text} is {want}"),
            None => {
                // a text that stands for nothing is found by the checker, one that is computed when it is computed
                let at_once = program::parse(text).map(|p| check(&p, &Ty::Dyn)).unwrap().iter().any(|f| f.message.contains("is not a"));
                let later = || matches!(outcome(&format!("[{text}].size() == 1"), &json!({})), Outcome::Error(_));
                assert!(at_once || later(), "{text} has a value");
            }
        }
    }
}

#[test]
fn quotes_floats_and_durations() {
    holds(&[
        (r#"strings.quote('first\nsecond "third" \\ ü')"#, Some(r#"'"first\\nsecond \\"third\\" \\\\ ü"'"#)),
        (r"strings.quote('\a\b\f\r\t\v')", Some(r#"'"\\a\\b\\f\\r\\t\\v"'"#)),
        ("strings.quote('')", Some(r#"'""'"#)),
        ("quantity('1.5Gi').asApproximateFloat()", Some("1610612736.0")),
        ("quantity('500m').asApproximateFloat()", Some("0.5")),
        ("quantity('-3').asApproximateFloat() + 0.5", Some("-2.5")),
        ("[duration('1h'), duration('30m')].sum()", Some("duration('90m')")),
        ("[duration('1s')].sum()", Some("duration('1s')")),
    ]);
}

#[test]
fn quantities() {
    holds(&[
        ("quantity('1.5Gi') == quantity('1536Mi')", Some("true")),
        ("quantity('1k') == quantity('1000')", Some("true")),
        ("quantity('1k') == quantity('1Ki')", Some("false")),
        ("isQuantity('1.3Gi')", Some("true")),
        ("isQuantity('20Mi')", Some("true")),
        ("isQuantity('1,3G')", Some("false")),
        ("isQuantity('10000k')", Some("true")),
        ("isQuantity('50000')", Some("true")),
        ("isQuantity('three')", Some("false")),
        ("quantity('200K')", None),
        ("quantity('three')", None),
        ("quantity('50000000G').isInteger()", Some("true")),
        ("quantity('50k').isInteger()", Some("true")),
        ("quantity('1500m').isInteger()", Some("false")),
        ("quantity('99999999999999999999').isInteger()", Some("false")),
        ("quantity('50k').asInteger()", Some("50000")),
        ("quantity('1500m').asInteger()", None),
        ("quantity('99999999999999999999').asInteger()", None),
        ("quantity('1.5Gi').asInteger()", Some("1610612736")),
        ("quantity('-1').sign()", Some("-1")),
        ("quantity('0').sign()", Some("0")),
        ("quantity('1n').sign()", Some("1")),
        ("quantity('50k').add(20) == quantity('50020')", Some("true")),
        ("quantity('50k').add(quantity('20')) == quantity('50020')", Some("true")),
        ("quantity('50k').sub(20) == quantity('49980')", Some("true")),
        ("quantity('50k').sub(quantity('20'))", Some("quantity('49980')")),
        ("quantity('50k').sub(quantity('100k')).sign()", Some("-1")),
        ("quantity('200M').compareTo(quantity('0.2G'))", Some("0")),
        ("quantity('50M').compareTo(quantity('50Mi'))", Some("-1")),
        ("quantity('50Mi').compareTo(quantity('50M'))", Some("1")),
        ("quantity('150Mi').isGreaterThan(quantity('100Mi'))", Some("true")),
        ("quantity('50M').isGreaterThan(quantity('100M'))", Some("false")),
        ("quantity('50M').isLessThan(quantity('100M'))", Some("true")),
        ("quantity('100M').isLessThan(quantity('50M'))", Some("false")),
        // a double has neither
        ("quantity('0.1').add(quantity('0.2')) == quantity('0.3')", Some("true")),
        ("quantity('9007199254740993').asInteger()", Some("9007199254740993")),
        ("quantity('170000000000000000000000000000').add(quantity('170000000000000000000000000000'))", None),
        ("quantity('1') in [quantity('1000m')]", Some("true")),
        ("quantity('1'.replace('1', '2')) == quantity('2')", Some("true")),
        ("quantity('1'.replace('1', 'x'))", None),
    ]);
}

#[test]
fn addresses_and_networks() {
    holds(&[
        ("ip('127.0.0.1') == ip('127.0.0.1')", Some("true")),
        ("ip('2001:db8::abcd') == ip('2001:DB8:0::ABCD')", Some("true")),
        ("string(ip('2001:DB8:0:0::ABCD'))", Some("'2001:db8::abcd'")),
        ("isIP('1.2.3.4')", Some("true")),
        ("isIP('01.2.3.4')", Some("false")),
        ("isIP('1.2.3')", Some("false")),
        ("isIP('::1%eth0')", Some("false")),
        ("isIP('::ffff:1.2.3.4')", Some("false")),
        ("isIP('1.2.3.4/32')", Some("false")),
        ("isIP('')", Some("false")),
        ("ip('::ffff:a00:1') == ip('10.0.0.1')", Some("true")),
        ("ip('::ffff:a00:1').family()", Some("4")),
        ("cidr('10.0.0.0/8').containsIP('::ffff:a00:1')", Some("true")),
        ("ip.isCanonical('127.0.0.1')", Some("true")),
        ("ip.isCanonical('2001:db8::abcd')", Some("true")),
        ("ip.isCanonical('2001:DB8::ABCD')", Some("false")),
        ("ip.isCanonical('2001:db8:0::abcd')", Some("false")),
        ("ip.isCanonical('x'.trim())", None),
        ("ip('256.0.0.1')", None),
        ("ip('127.0.0.1').family()", Some("4")),
        ("ip('::1').family()", Some("6")),
        ("ip('0.0.0.0').isUnspecified()", Some("true")),
        ("ip('::').isUnspecified()", Some("true")),
        ("ip('127.0.0.1').isUnspecified()", Some("false")),
        ("ip('127.255.0.1').isLoopback()", Some("true")),
        ("ip('::1').isLoopback()", Some("true")),
        ("ip('10.0.0.1').isLoopback()", Some("false")),
        ("ip('224.0.0.1').isLinkLocalMulticast()", Some("true")),
        ("ip('224.0.1.1').isLinkLocalMulticast()", Some("false")),
        ("ip('ff02::1').isLinkLocalMulticast()", Some("true")),
        ("ip('ff12::1').isLinkLocalMulticast()", Some("true")),
        ("ip('fd00::1').isLinkLocalMulticast()", Some("false")),
        ("ip('169.254.169.254').isLinkLocalUnicast()", Some("true")),
        ("ip('fe80::1').isLinkLocalUnicast()", Some("true")),
        ("ip('febf::1').isLinkLocalUnicast()", Some("true")),
        ("ip('fec0::1').isLinkLocalUnicast()", Some("false")),
        ("ip('192.168.0.1').isGlobalUnicast()", Some("true")),
        ("ip('255.255.255.255').isGlobalUnicast()", Some("false")),
        ("ip('224.0.0.1').isGlobalUnicast()", Some("false")),
        ("ip('169.254.0.1').isGlobalUnicast()", Some("false")),
        ("ip('127.0.0.1').isGlobalUnicast()", Some("false")),
        ("ip('2001:db8::abcd').isGlobalUnicast()", Some("true")),
        ("ip('ff00::1').isGlobalUnicast()", Some("false")),
        ("ip('10.0.0.1') in [ip('10.0.0.1')]", Some("true")),
        ("isCIDR('10.0.0.0/8')", Some("true")),
        ("isCIDR('10.0.0.0/33')", Some("false")),
        ("isCIDR('10.0.0.0/08')", Some("false")),
        ("isCIDR('10.0.0.0/+8')", Some("false")),
        ("isCIDR('10.0.0.0/')", Some("false")),
        ("isCIDR('10.0.0.0')", Some("false")),
        ("isCIDR('::ffff:10.0.0.0/100')", Some("false")),
        ("isCIDR('::ffff:a00:0/100')", Some("false")),
        ("cidr('10.0.0.0/x')", None),
        ("cidr('10.0.0.0/8').containsIP('10.255.0.1')", Some("true")),
        ("cidr('10.0.0.0/8').containsIP(ip('11.0.0.1'))", Some("false")),
        ("cidr('10.0.0.0/8').containsIP('::1')", Some("false")),
        ("cidr('10.0.0.0/8').containsIP('10.0.0')", None),
        ("cidr('10.0.0.0/8').containsIP('10.0.0'.trim())", None),
        ("cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')", Some("true")),
        ("cidr('10.0.0.0/8').containsCIDR(cidr('10.0.0.0/8'))", Some("true")),
        ("cidr('10.0.0.0/8').containsCIDR('10.0.0.0/7')", Some("false")),
        ("cidr('2001:db8::/32').containsCIDR('2001:db8:1::/48')", Some("true")),
        ("cidr('192.168.1.5/24').ip() == ip('192.168.1.5')", Some("true")),
        ("cidr('192.168.1.5/24') == cidr('192.168.1.0/24')", Some("false")),
        ("cidr('192.168.1.5/24').masked() == cidr('192.168.1.0/24')", Some("true")),
        ("cidr('0.0.0.0/0').containsIP('255.255.255.255')", Some("true")),
        ("cidr('192.168.1.5/24').prefixLength()", Some("24")),
        ("string(cidr('2001:DB8::/32'))", Some("'2001:db8::/32'")),
    ]);
}

#[test]
fn urls() {
    holds(&[
        ("isURL('https://user:pass@example.com:80/path?query=val#fragment')", Some("true")),
        ("isURL('/absolute/path')", Some("true")),
        ("isURL('../relative')", Some("false")),
        ("isURL('')", Some("false")),
        ("isURL('https://a:b:c/')", Some("false")),
        ("isURL('https://a b/')", Some("false")),
        ("isURL('https://[::1]/')", Some("true")),
        ("isURL('https://[::1/')", Some("false")),
        ("isURL('https://a/%zz')", Some("false")),
        ("isURL('https://a/%ff')", Some("false")),
        ("isURL('https://%61.example/')", Some("false")),
        ("isURL('https://a\\\\b/')", Some("false")),
        ("isURL('https://a:80x/')", Some("false")),
        ("isURL('https://a\\n/')", Some("false")),
        ("isURL(':no-scheme')", Some("false")),
        ("url('../relative')", None),
        ("url('HTTPS://example.com/').getScheme()", Some("'https'")),
        ("url('/path').getScheme()", Some("''")),
        ("url('https://example.com:80/').getHost()", Some("'example.com:80'")),
        ("url('https://example.com/').getHost()", Some("'example.com'")),
        ("url('https://[::1]:80/').getHost()", Some("'[::1]:80'")),
        ("url('/path').getHost()", Some("''")),
        ("url('https://good.example@evil.example/').getHost()", Some("'evil.example'")),
        ("url('https://good.example:1@evil.example/').getHostname()", Some("'evil.example'")),
        ("url('https://a@b@evil.example/')", None),
        ("url('https://EXAMPLE.com').getHost()", Some("'EXAMPLE.com'")),
        ("url('https://example.com:80/').getHostname()", Some("'example.com'")),
        ("url('https://127.0.0.1:80/').getHostname()", Some("'127.0.0.1'")),
        ("url('https://[::1]:80/').getHostname()", Some("'::1'")),
        ("url('https://example.com:80/').getPort()", Some("'80'")),
        ("url('https://example.com/').getPort()", Some("''")),
        ("url('https://[::1]').getPort()", Some("''")),
        ("url('https://example.com:/').getPort()", Some("''")),
        ("url('https://example.com').getEscapedPath()", Some("''")),
        ("url('https://example.com/path with spaces/').getEscapedPath()", Some("'/path%20with%20spaces/'")),
        ("url('https://example.com/a%2Fb').getEscapedPath()", Some("'/a%2Fb'")),
        ("url('https://example.com/é').getEscapedPath()", Some("'/%C3%A9'")),
        ("url('/a/../b').getEscapedPath()", Some("'/a/../b'")),
        ("url('https://example.com/p?k1=a&k2=b&k2=c').getQuery()['k2']", Some("['b', 'c']")),
        ("url('https://example.com/p?k1=a+b&k2=%26').getQuery() == {'k1': ['a b'], 'k2': ['&']}", Some("true")),
        ("url('https://example.com/p?flag').getQuery()['flag']", Some("['']")),
        ("url('https://example.com/p').getQuery().size()", Some("0")),
        ("url('https://example.com/p?').getQuery().size()", Some("0")),
        ("url('https://example.com/p?a;b').getQuery()", None),
        ("url('https://example.com/p?a=%zz').getQuery()", None),
        ("url('mailto:someone@example.com').getScheme()", Some("'mailto'")),
        ("url('mailto:someone@example.com').getHost()", Some("''")),
        ("url('https://a/') == url('HTTPS://a/')", Some("true")),
        ("url('https://a/') == url('https://a')", Some("false")),
    ]);
}

#[test]
fn patterns_sets_and_lists() {
    holds(&[
        ("'abc 123'.find('[0-9]+')", Some("'123'")),
        ("'abc 123'.find('xyz')", Some("''")),
        ("'123 abc 456'.findAll('[0-9]+')", Some("['123', '456']")),
        ("'123 abc 456'.findAll('[0-9]+', 1)", Some("['123']")),
        ("'123 abc 456'.findAll('[0-9]+', 0)", Some("[]")),
        ("'123 abc 456'.findAll('[0-9]+', -1)", Some("['123', '456']")),
        ("'123 abc 456'.findAll('xyz')", Some("[]")),
        ("'baaa'.findAll('a*')", Some("['', 'aaa']")),
        ("sets.contains([], [])", Some("true")),
        ("sets.contains([], [1])", Some("false")),
        ("sets.contains([1, 2, 3, 4], [2, 3])", Some("true")),
        ("sets.contains([1, 2, 3], [1.0, 2.0])", Some("true")),
        ("sets.contains([1], [1, 1])", Some("true")),
        ("sets.equivalent([], [])", Some("true")),
        ("sets.equivalent([1], [1, 1])", Some("true")),
        ("sets.equivalent([1, 2, 3], [3, 2, 1, 1])", Some("true")),
        ("sets.equivalent([1, 2], [1])", Some("false")),
        ("sets.intersects([1], [])", Some("false")),
        ("sets.intersects([1], [1, 2])", Some("true")),
        ("sets.intersects([[1], [2, 3]], [[1, 2], [2, 3]])", Some("true")),
        ("[1, 2, 2].isSorted()", Some("true")),
        ("[2.0, 1.0].isSorted()", Some("false")),
        ("['a', 'b'].isSorted()", Some("true")),
        ("[].isSorted()", Some("true")),
        ("[duration('1s'), duration('1m')].isSorted()", Some("true")),
        ("[1, 3].sum()", Some("4")),
        ("[1.0, 3.5].sum()", Some("4.5")),
        ("[].sum()", Some("0")),
        ("[9223372036854775807, 1].sum()", None),
        ("[1, 3].min()", Some("1")),
        ("['b', 'a', 'c'].max()", Some("'c'")),
        ("[].min()", None),
        ("[].max()", None),
        ("[1, 2, 2, 3].indexOf(2)", Some("1")),
        ("['a', 'b', 'b', 'c'].lastIndexOf('b')", Some("2")),
        ("[1].indexOf(1.1)", Some("-1")),
        ("[].lastIndexOf('string')", Some("-1")),
    ]);
}

#[test]
fn texts() {
    holds(&[
        ("'tacocat'.charAt(3)", Some("'o'")),
        ("'tacocat'.charAt(7)", Some("''")),
        ("'tacocat'.charAt(8)", None),
        ("'tacocat'.charAt(-1)", None),
        ("'©αT'.charAt(1)", Some("'α'")),
        ("'tacocat'.indexOf('')", Some("0")),
        ("'tacocat'.indexOf('ac')", Some("1")),
        ("'tacocat'.indexOf('nope')", Some("-1")),
        ("'tacocat'.indexOf('a', 3)", Some("5")),
        ("'tacocat'.indexOf('at', 3)", Some("5")),
        ("'tacocat'.indexOf('a', 30)", None),
        ("'tacocat'.indexOf('a', -1)", None),
        ("'ta©o©αT'.indexOf('©')", Some("2")),
        ("'ta©o©αT'.indexOf('©', 3)", Some("4")),
        ("'tacocat'.lastIndexOf('')", Some("7")),
        ("'tacocat'.lastIndexOf('at')", Some("5")),
        ("'tacocat'.lastIndexOf('none')", Some("-1")),
        ("'tacocat'.lastIndexOf('a', 3)", Some("1")),
        ("'ta©o©αT'.lastIndexOf('©', 3)", Some("2")),
        ("'tacocat'.lastIndexOf('a', -1)", None),
        ("'TacoCat'.lowerAscii()", Some("'tacocat'")),
        ("'TacoCÆt'.lowerAscii()", Some("'tacocÆt'")),
        ("'TacoCæt'.upperAscii()", Some("'TACOCæT'")),
        ("'hello hello'.replace('he', 'we')", Some("'wello wello'")),
        ("'hello hello'.replace('he', 'we', 1)", Some("'wello hello'")),
        ("'hello hello'.replace('he', 'we', 0)", Some("'hello hello'")),
        ("'hello hello'.replace('he', 'we', -1)", Some("'wello wello'")),
        ("'ab'.replace('', '_')", Some("'_a_b_'")),
        ("'ab'.replace('', '_', 2)", Some("'_a_b'")),
        ("'hello hello hello'.split(' ')", Some("['hello', 'hello', 'hello']")),
        ("'hello hello hello'.split(' ', 0)", Some("[]")),
        ("'hello hello hello'.split(' ', 1)", Some("['hello hello hello']")),
        ("'hello hello hello'.split(' ', 2)", Some("['hello', 'hello hello']")),
        ("'hello hello hello'.split(' ', -1)", Some("['hello', 'hello', 'hello']")),
        ("'a©b'.split('')", Some("['a', '©', 'b']")),
        ("'a©b'.split('', 2)", Some("['a', '©b']")),
        ("''.split('')", Some("[]")),
        ("''.split(',')", Some("['']")),
        ("'tacocat'.substring(4)", Some("'cat'")),
        ("'tacocat'.substring(0, 4)", Some("'taco'")),
        ("'tacocat'.substring(7)", Some("''")),
        ("'tacocat'.substring(8)", None),
        ("'tacocat'.substring(-1)", None),
        ("'tacocat'.substring(2, 1)", None),
        ("'ta©o©αT'.substring(2, 6)", Some("'©o©α'")),
        ("' \\t \\u00a0\\u2028trim\\n '.trim()", Some("'trim'")),
        ("'  '.trim()", Some("''")),
        ("['x', 'y'].join()", Some("'xy'")),
        ("['x', 'y'].join('-')", Some("'x-y'")),
        ("[].join('-')", Some("''")),
        ("['x'].join('-')", Some("'x'")),
    ]);
}

#[test]
fn times_in_zones() {
    holds(&[
        ("timestamp('2026-07-01T22:30:15Z').getHours('Europe/Berlin')", Some("0")),
        ("timestamp('2026-07-01T22:30:15Z').getDate('Europe/Berlin')", Some("2")),
        ("timestamp('2026-01-01T22:30:15Z').getHours('Europe/Berlin')", Some("23")),
        ("timestamp('2026-01-01T02:30:15Z').getFullYear('America/New_York')", Some("2025")),
        ("timestamp('2026-01-01T02:30:15Z').getDayOfWeek('-02:30')", Some("4")),
        ("timestamp('2026-01-01T02:29:15Z').getDayOfWeek('-02:30')", Some("3")),
        ("timestamp('2026-01-01T02:30:15Z').getMinutes('+05:45')", Some("15")),
        ("timestamp('2026-01-01T02:30:15Z').getHours('')", Some("2")),
        ("timestamp('2026-01-01T02:30:15Z').getHours('UTC'.trim())", Some("2")),
        ("timestamp('2026-01-01T02:30:15Z').getHours('Mars'.trim())", None),
    ]);
}

fn faults(text: &str, ty: &Ty) -> Vec<String> {
    let parsed = program::parse(text).unwrap_or_else(|f| panic!("{text}: {f:?}"));
    check(&parsed, ty).into_iter().map(|f| format!("{}:{} {}", f.line, f.column, f.message)).collect()
}

#[test]
fn slips_are_found_when_the_rule_is_written() {
    for (text, want) in [
        ("quantity('5 apples').sign() > 0", "1:10 \"5 apples\" is not a quantity such as"),
        ("ip('10.0.0.300').isLoopback()", "1:4 \"10.0.0.300\" is not an IP address such as"),
        ("cidr('10.0.0.0/40').containsIP(args.s)", "1:6 \"10.0.0.0/40\" is not a CIDR such as"),
        ("cidr('10.0.0.0/8').containsIP('10.0.0')", "1:31 \"10.0.0\" is not an IP address such as"),
        ("cidr('10.0.0.0/8').containsCIDR('10.0.0.0')", "1:33 \"10.0.0.0\" is not a CIDR"),
        ("url('example.com/path').getHost() == 'x'", "1:5 \"example.com/path\" is not a URL such as"),
        ("now.getHours('Europe/Berlinn') > 8", "1:14 \"Europe/Berlinn\" is not a time zone"),
        ("args.s.find('(') == ''", "1:13 not a regular expression"),
        ("args.s.find(args.s) == ''", "1:13 the pattern of find() must be a constant"),
        ("quantiy(args.s).sign() > 0", "1:1 no function `quantiy`; did you mean `quantity`?"),
        ("cidr(args.s).containsIp('10.0.0.1')", "1:14 a CIDR has no function `containsIp`; did you mean `containsIP`?"),
        ("ip(args.s).isLoopBack()", "1:12 an IP address has no function `isLoopBack`; did you mean `isLoopback`?"),
        ("sets.contain(args.list, [1])", "1:6 sets has no function `contain`; did you mean `contains`?"),
        ("sets.contains(args.list)", "1:6 contains() takes (list, list), not (list(int))"),
        ("args.s.indexOf(1) == 0", "1:8 indexOf() takes (string) or (string, int) on a string, not (int)"),
        ("args.list.indexOf('x') == 0", "1:11 indexOf() takes (element) on a list(int), not (string)"),
        ("args.texts.sum() == 0", "1:12 sum() is called on a list of numbers or durations, not on a list(string)"),
        ("args.list.join(',') == ''", "1:11 join() is called on a list of string, not on a list(int)"),
        ("indexOf(args.s, 'x') == 0", "1:1 no function `indexOf`; it is called on a value: x.indexOf(…)"),
        ("quantity(args.s) < quantity('1')", "1:18 < does not compare a quantity with a quantity; use isLessThan()"),
        ("quantity(args.s) == 5", "1:18 a quantity never equals an int"),
        ("ip(args.i).family() == 4", "1:1 ip() takes (string), not (int)"),
        ("isIP(cidr('10.0.0.0/8'))", "1:1 isIP() takes (string), not (CIDR)"),
        ("args.texts.map(t, t.replace('a', 'bb')).size() > 0", "not build larger values"),
        ("args.texts.map(t, t.split('')).size() > 0", "not build larger values"),
    ] {
        let found = faults(text, &TYPED);
        assert!(found.len() == 1 && found[0].contains(want), "{text}\n want {want}\n got {found:?}");
    }
    for text in [
        "args.texts.all(ip, isIP(ip) && ip(ip).family() == 4)",
        "args.texts.all(sets, sets.contains('a'))",
        "args.texts.map(t, t.trim().lowerAscii().substring(1)).all(t, t != '')",
        "args.texts.map(t, quantity(t)).all(q, q.isLessThan(quantity('4Gi')))",
        "args.texts.map(u, url(u).getHost()).all(h, h.endsWith('.acme.example'))",
        "args.free.indexOf('x') == args.free.lastIndexOf(1) || args.free.ip().family() == 4",
        "sets.contains(['a', 'b'], args.texts) && !sets.intersects(roles, ['x'])",
        "args.list.sum() < 100 && args.list.max() < 50 && args.list.isSorted()",
        "now.getHours(args.s) >= 8",
    ] {
        assert_eq!(faults(text, &TYPED), Vec::<String>::new(), "{text}");
        let _ = program_of(text, &TYPED);
    }
}

/// Expressions that want to read or build far more than a decision may.
#[test]
fn what_grows_is_charged_before_it_grows() {
    let long = "ab".repeat(100_000);
    let items: Vec<Json> = (0..2000).map(|n| json!(n)).collect();
    let args = json!({"s": long, "texts": vec![long.as_str(); 20], "list": items});
    for text in [
        "args.s.replace('a', args.s).size() > 0",
        "args.s.replace('', args.s).size() > 0",
        "args.s.replace('a', 'aa').replace('a', args.s).size() > 0",
        "args.s.split('').join(args.s).size() > 0",
        "args.list.all(x, args.s.split('').size() > 0)",
        "args.list.all(x, args.s.findAll('a?').size() > 0)",
        "sets.contains(args.list, args.list)",
        "args.list.all(x, sets.intersects(args.texts, ['']) || true)",
        "args.list.all(x, args.texts.indexOf('') == -1)",
        "args.list.all(x, args.s.lowerAscii() != '')",
        "args.list.all(x, args.s.lastIndexOf('c') == -1)",
        "args.list.all(x, !isURL(args.s) || true)",
    ] {
        let program = program_of(text, &TYPED);
        let limits = Limits { steps: MAX_STEPS, time: std::time::Duration::from_secs(20) };
        assert_eq!(session(&args, limits).eval(&program), Outcome::Spent, "{text}");
        assert_eq!(session(&args, limits).interpreted(&program), Outcome::Spent, "cel: {text}");
    }
}

#[test]
fn every_function_has_a_number_of_its_own() {
    for sig in TABLE {
        assert_eq!(super::Fun::numbered(sig.fun.number()), Some(sig.fun));
        assert_eq!(super::Fun::of(sig.on, sig.fun.name()), Some(sig.fun), "{:?}", sig.fun);
    }
}

/// What the extension library of the crate `cel`, written by others, makes of a call with a text.
fn by_others(call: &str, text: &str) -> Result<cel::Value, cel::ExecutionError> {
    let mut env = cel::Env::stdlib();
    env.add_extension(cel::extensions::strings).unwrap();
    let env = std::sync::Arc::new(env);
    let program = env.compile(call).unwrap();
    let mut context = cel::Context::with_env(env);
    context.add_variable_from_value("s", text.to_owned());
    program.execute(&context)
}

proptest! {
    /// Functions on texts are those of another implementation.
    #[test]
    fn texts_are_what_others_compute(
        text in "[abAB é€ ]{0,8}", other in "[abé]{0,2}", new in "[x€]{0,3}", m in -2_i64..10, n in -2_i64..10, form in 0_usize..19
    ) {
        let call = [
            "#.charAt(@)", "#.indexOf('<')", "#.indexOf('<', @)", "#.lastIndexOf('<')", "#.lastIndexOf('<', @)", "#.lowerAscii()", "#.upperAscii()",
            "#.replace('<', '>')", "#.replace('<', '>', @)", "#.split('<')", "#.split('<', @)", "#.substring(@)", "#.substring(@, $)", "#.trim()",
            "#.split('<').join('>')", "#.split('').join()", "#.substring(@).indexOf('<', $)", "#.trim().replace('', '>', @)", "#.split('', @)",
        ][form];
        let call = call.replace('<', &other).replace('>', &new).replace('@', &m.to_string()).replace('$', &n.to_string());
        let want = by_others(&call.replace('#', "s"), &text);
        let args = json!({"s": text});
        let ours = program::parse(&call.replace('#', "args.s")).unwrap();
        let program = program::finish(ours).unwrap();
        let session = session(&args, AMPLE);
        let code = program.code.as_ref().unwrap();
        let got = crate::cel::code::Machine::new(&session.slots, session.meter()).run(code);
        match (&want, &got) {
            (Ok(want), Ok(got)) => prop_assert_eq!(want, &got.to_cel(), "{} of {:?}", call, text),
            (Err(_), Err(_)) => {}
            _ => prop_assert!(false, "{call} of {text:?}: {want:?}, ours {got:?}"),
        }
    }

    /// A quantity written in thousandths, and as a plain number, is the same; order and sum are those of whole numbers.
    #[test]
    fn quantities_are_exact(a in any::<i32>(), b in any::<i32>()) {
        let (a, b) = (i64::from(a), i64::from(b));
        let args = json!({"a": format!("{a}m"), "b": format!("{b}m"), "sum": format!("{}e-3", a + b)});
        let text = format!("quantity(args.a).add(quantity(args.b)) == quantity(args.sum) && quantity(args.a).isLessThan(quantity(args.b)) == {}", a < b);
        prop_assert_eq!(outcome(&text, &args), Outcome::Holds);
    }
}
