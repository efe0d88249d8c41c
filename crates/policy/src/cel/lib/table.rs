//! Which functions there are, on what, and what they take and give. The checker, the compiler and the evaluator `cel` all read this one table.

use super::Kind;
use crate::cel::ty::Ty;

/// What a function is called on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// By its name alone.
    Nothing,
    /// By its name behind that of a library.
    Space(&'static str),
    /// On a value.
    Value(Takes),
}

/// What a function takes as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// string.
    Text,
    /// A constant pattern.
    Pattern,
    /// int.
    Int,
    /// A quantity, an address and the like.
    Of(Kind),
    /// A list.
    List,
    /// A list of strings.
    Texts,
    /// A list of numbers, or of durations.
    Numbers,
    /// A list of what has an order.
    Ordered,
    /// What the list has.
    Element,
}

/// What a function gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    /// bool.
    Bool,
    /// int.
    Int,
    /// double.
    Double,
    /// string.
    Text,
    /// A list of strings.
    Texts,
    /// A list of strings by name.
    Query,
    /// What the list has.
    Element,
    /// A quantity, an address and the like.
    Of(Kind),
}

/// One way to call a function.
#[derive(Clone, Copy, Debug)]
pub struct Sig {
    /// The function.
    pub fun: Fun,
    /// What it is called on.
    pub on: On,
    /// Its arguments.
    pub takes: &'static [Takes],
    /// Its result.
    pub gives: Gives,
}

/// Names of libraries that stand before a function.
pub const SPACES: [&str; 3] = ["ip", "sets", "strings"];

macro_rules! functions {
    ($($fun:ident $name:literal { $($on:expr, [$($takes:expr),*] => $gives:expr);+ })+) => {
        /// A function.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each is what its name in rules says")]
        pub enum Fun { $($fun),+ }

        impl Fun {
            /// Its name, without what it is called on.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$fun => $name),+ }
            }
        }

        /// Every way to call every function.
        pub const TABLE: &[Sig] = &[$($(Sig { fun: Fun::$fun, on: $on, takes: &[$($takes),*], gives: $gives }),+),+];
    };
}

use On::{Nothing, Space, Value};
use Takes::{Element, Int, List, Numbers, Of, Ordered, Pattern, Text, Texts};

functions! {
    Quantity "quantity" { Nothing, [Text] => Gives::Of(Kind::Quantity) }
    IsQuantity "isQuantity" { Nothing, [Text] => Gives::Bool }
    Ip "ip" { Nothing, [Text] => Gives::Of(Kind::Ip) }
    IsIp "isIP" { Nothing, [Text] => Gives::Bool }
    IsCanonical "isCanonical" { Space("ip"), [Text] => Gives::Bool }
    Cidr "cidr" { Nothing, [Text] => Gives::Of(Kind::Cidr) }
    IsCidr "isCIDR" { Nothing, [Text] => Gives::Bool }
    Url "url" { Nothing, [Text] => Gives::Of(Kind::Url) }
    IsUrl "isURL" { Nothing, [Text] => Gives::Bool }
    Contains "contains" { Space("sets"), [List, List] => Gives::Bool }
    Equivalent "equivalent" { Space("sets"), [List, List] => Gives::Bool }
    Intersects "intersects" { Space("sets"), [List, List] => Gives::Bool }
    Quote "quote" { Space("strings"), [Text] => Gives::Text }
    CharAt "charAt" { Value(Text), [Int] => Gives::Text }
    Find "find" { Value(Text), [Pattern] => Gives::Text }
    FindAll "findAll" { Value(Text), [Pattern] => Gives::Texts; Value(Text), [Pattern, Int] => Gives::Texts }
    IndexOf "indexOf" { Value(Text), [Text] => Gives::Int; Value(Text), [Text, Int] => Gives::Int; Value(List), [Element] => Gives::Int }
    LastIndexOf "lastIndexOf" { Value(Text), [Text] => Gives::Int; Value(Text), [Text, Int] => Gives::Int; Value(List), [Element] => Gives::Int }
    LowerAscii "lowerAscii" { Value(Text), [] => Gives::Text }
    UpperAscii "upperAscii" { Value(Text), [] => Gives::Text }
    Replace "replace" { Value(Text), [Text, Text] => Gives::Text; Value(Text), [Text, Text, Int] => Gives::Text }
    Split "split" { Value(Text), [Text] => Gives::Texts; Value(Text), [Text, Int] => Gives::Texts }
    Substring "substring" { Value(Text), [Int] => Gives::Text; Value(Text), [Int, Int] => Gives::Text }
    Trim "trim" { Value(Text), [] => Gives::Text }
    Join "join" { Value(Texts), [] => Gives::Text; Value(Texts), [Text] => Gives::Text }
    IsSorted "isSorted" { Value(Ordered), [] => Gives::Bool }
    Sum "sum" { Value(Numbers), [] => Gives::Element }
    Min "min" { Value(Ordered), [] => Gives::Element }
    Max "max" { Value(Ordered), [] => Gives::Element }
    IsInteger "isInteger" { Value(Of(Kind::Quantity)), [] => Gives::Bool }
    AsInteger "asInteger" { Value(Of(Kind::Quantity)), [] => Gives::Int }
    AsApproximateFloat "asApproximateFloat" { Value(Of(Kind::Quantity)), [] => Gives::Double }
    Sign "sign" { Value(Of(Kind::Quantity)), [] => Gives::Int }
    Add "add" { Value(Of(Kind::Quantity)), [Of(Kind::Quantity)] => Gives::Of(Kind::Quantity); Value(Of(Kind::Quantity)), [Int] => Gives::Of(Kind::Quantity) }
    Sub "sub" { Value(Of(Kind::Quantity)), [Of(Kind::Quantity)] => Gives::Of(Kind::Quantity); Value(Of(Kind::Quantity)), [Int] => Gives::Of(Kind::Quantity) }
    CompareTo "compareTo" { Value(Of(Kind::Quantity)), [Of(Kind::Quantity)] => Gives::Int }
    IsLessThan "isLessThan" { Value(Of(Kind::Quantity)), [Of(Kind::Quantity)] => Gives::Bool }
    IsGreaterThan "isGreaterThan" { Value(Of(Kind::Quantity)), [Of(Kind::Quantity)] => Gives::Bool }
    Family "family" { Value(Of(Kind::Ip)), [] => Gives::Int }
    IsUnspecified "isUnspecified" { Value(Of(Kind::Ip)), [] => Gives::Bool }
    IsLoopback "isLoopback" { Value(Of(Kind::Ip)), [] => Gives::Bool }
    IsLinkLocalMulticast "isLinkLocalMulticast" { Value(Of(Kind::Ip)), [] => Gives::Bool }
    IsLinkLocalUnicast "isLinkLocalUnicast" { Value(Of(Kind::Ip)), [] => Gives::Bool }
    IsGlobalUnicast "isGlobalUnicast" { Value(Of(Kind::Ip)), [] => Gives::Bool }
    ContainsIp "containsIP" { Value(Of(Kind::Cidr)), [Of(Kind::Ip)] => Gives::Bool; Value(Of(Kind::Cidr)), [Text] => Gives::Bool }
    ContainsCidr "containsCIDR" { Value(Of(Kind::Cidr)), [Of(Kind::Cidr)] => Gives::Bool; Value(Of(Kind::Cidr)), [Text] => Gives::Bool }
    OfCidr "ip" { Value(Of(Kind::Cidr)), [] => Gives::Of(Kind::Ip) }
    Masked "masked" { Value(Of(Kind::Cidr)), [] => Gives::Of(Kind::Cidr) }
    PrefixLength "prefixLength" { Value(Of(Kind::Cidr)), [] => Gives::Int }
    GetScheme "getScheme" { Value(Of(Kind::Url)), [] => Gives::Text }
    GetHost "getHost" { Value(Of(Kind::Url)), [] => Gives::Text }
    GetHostname "getHostname" { Value(Of(Kind::Url)), [] => Gives::Text }
    GetPort "getPort" { Value(Of(Kind::Url)), [] => Gives::Text }
    GetEscapedPath "getEscapedPath" { Value(Of(Kind::Url)), [] => Gives::Text }
    GetQuery "getQuery" { Value(Of(Kind::Url)), [] => Gives::Query }
}

impl On {
    /// Whether two are written alike: by name alone, behind the same library, on a value.
    #[must_use]
    pub fn alike(self, other: Self) -> bool {
        self == other || matches!((self, other), (Value(_), Value(_)))
    }
}

impl Fun {
    /// The function of a name; `on` says how it is called, any value stands for every value.
    #[must_use]
    pub fn of(on: On, name: &str) -> Option<Self> {
        TABLE.iter().find(|sig| sig.on.alike(on) && sig.fun.name() == name).map(|sig| sig.fun)
    }

    /// Its number, for the evaluator `cel`.
    #[must_use]
    pub fn number(self) -> i64 {
        TABLE.iter().position(|sig| sig.fun == self).and_then(|at| i64::try_from(at).ok()).unwrap_or(-1)
    }

    /// The function of a number.
    #[must_use]
    pub fn numbered(number: i64) -> Option<Self> {
        usize::try_from(number).ok().and_then(|at| TABLE.get(at)).map(|sig| sig.fun)
    }

    /// The ways to call it.
    pub fn signatures(self) -> impl Iterator<Item = &'static Sig> {
        TABLE.iter().filter(move |sig| sig.fun == self)
    }

    /// How it is called.
    #[must_use]
    pub fn on(self) -> On {
        self.signatures().next().map_or(Nothing, |sig| sig.on)
    }

    /// Whether its first argument is a pattern.
    #[must_use]
    pub fn has_pattern(self) -> bool {
        matches!(self, Self::Find | Self::FindAll)
    }

    /// The kind that a text at this argument (the receiver counts) stands for.
    #[must_use]
    pub fn reads(self, at: usize) -> Option<Kind> {
        match (self, at) {
            (Self::Quantity, 0) => Some(Kind::Quantity),
            (Self::Ip, 0) | (Self::ContainsIp, 1) => Some(Kind::Ip),
            (Self::Cidr, 0) | (Self::ContainsCidr, 1) => Some(Kind::Cidr),
            (Self::Url, 0) => Some(Kind::Url),
            _ => None,
        }
    }

    /// Whether it does nothing but make a value of a kind from a text.
    #[must_use]
    pub fn makes(self) -> bool {
        matches!(self, Self::Quantity | Self::Ip | Self::Cidr | Self::Url)
    }

    /// Whether it charges nothing beside its step: it reads and makes nothing but what is small.
    #[must_use]
    pub fn free(self) -> bool {
        let small = |takes: &Takes| matches!(takes, Of(Kind::Quantity | Kind::Ip | Kind::Cidr) | Int);
        self.signatures().all(|sig| matches!(sig.on, Value(on) if small(&on)) && sig.takes.iter().all(small))
    }

    /// The kind that the function belongs to; None: texts and lists.
    #[must_use]
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::Quantity | Self::IsQuantity => Some(Kind::Quantity),
            Self::Ip | Self::IsIp | Self::IsCanonical => Some(Kind::Ip),
            Self::Cidr | Self::IsCidr => Some(Kind::Cidr),
            Self::Url | Self::IsUrl => Some(Kind::Url),
            _ => match self.on() {
                Value(Of(kind)) => Some(kind),
                _ => None,
            },
        }
    }
}

impl Takes {
    /// Whether a type goes here. Whether an element is one of the list is known to the checker alone.
    #[must_use]
    pub fn fits(self, ty: &Ty) -> bool {
        let element = |of: &dyn Fn(&Ty) -> bool| match ty.non_null() {
            Ty::List(inner) => matches!(inner.non_null(), Ty::Dyn) || of(inner.non_null()),
            _ => false,
        };
        if *ty == Ty::Dyn {
            return true;
        }
        match self {
            Text | Pattern => matches!(ty.non_null(), Ty::Str(_)),
            Int => *ty.non_null() == Ty::Int,
            Of(kind) => *ty.non_null() == Ty::Of(kind),
            List => matches!(ty.non_null(), Ty::List(_)),
            Texts => element(&|of| matches!(of, Ty::Str(_))),
            Numbers => element(&|of| of.number() || matches!(of, Ty::Duration)),
            Ordered => element(&|of| matches!(of, Ty::Int | Ty::Double | Ty::Bool | Ty::Str(_) | Ty::Timestamp | Ty::Duration)),
            Element => true,
        }
    }
}

impl std::fmt::Display for Takes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Text => f.write_str("string"),
            Pattern => f.write_str("pattern"),
            Int => f.write_str("int"),
            Of(kind) => kind.fmt(f),
            List => f.write_str("list"),
            Texts => f.write_str("list of string"),
            Numbers => f.write_str("list of numbers or durations"),
            Ordered => f.write_str("list of what has an order"),
            Element => f.write_str("element"),
        }
    }
}

impl Sig {
    /// Its arguments, for messages.
    #[must_use]
    pub fn shown(&self) -> String {
        let takes: Vec<String> = self.takes.iter().map(ToString::to_string).collect();
        format!("({})", takes.join(", "))
    }
}
