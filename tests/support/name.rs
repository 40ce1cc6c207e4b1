use nvent_native::Error;

/// Checks a name, of whichever kind is expected where it stands.
pub(crate) fn name<'a, T: ?Sized>(text: &'a str) -> &'a T
where
    &'a T: TryFrom<&'a str, Error = Error>,
{
    text.try_into().expect("the names that tests use are valid")
}
