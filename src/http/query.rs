//! Parameters behind the question mark, read strictly: a value that is there is right or told to be wrong.

use std::ops::RangeInclusive;
use std::str::FromStr;

use actix_web::{HttpRequest, web};
use sotto_protocol::{ErrorCode, FieldError, Problem};

/// The parameters of a request. Those that nobody asks for are ignored.
#[derive(Debug)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Takes the query apart.
    ///
    /// # Errors
    /// `invalid_frame` when it is not URL-encoded UTF-8.
    pub fn of(request: &HttpRequest) -> Result<Self, Problem> {
        web::Query::<Vec<(String, String)>>::from_query(request.query_string())
            .map(|pairs| Self(pairs.into_inner()))
            .map_err(|_| Problem::new(ErrorCode::InvalidFrame, "the query cannot be read"))
    }

    /// The text of a parameter.
    ///
    /// # Errors
    /// `validation_failed` when it stands there twice.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(FieldError::parameter(name, "repeated").into()),
            (value, None) => Ok(value),
        }
    }

    /// A number within bounds.
    ///
    /// # Errors
    /// `validation_failed` when it is no number, outside, or there twice.
    pub fn number<T: FromStr + PartialOrd>(&self, name: &str, bounds: RangeInclusive<T>) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let number: T = text.parse().map_err(|_| FieldError::parameter(name, "wrong_type"))?;
        if bounds.contains(&number) {
            Ok(Some(number))
        } else {
            Err(FieldError::parameter(name, "out_of_range").into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn limit(query: &str) -> Result<Option<usize>, String> {
        let request = TestRequest::with_uri(&format!("/x?{query}")).to_http_request();
        Query::of(&request).and_then(|query| query.number("limit", 1..=200)).map_err(|problem| {
            assert_eq!(problem.errors[0].parameter.as_deref(), Some("limit"));
            problem.errors[0].code.clone()
        })
    }

    #[test]
    fn numbers_are_within_or_refused() {
        assert_eq!(limit(""), Ok(None));
        assert_eq!(limit("other=x&limit=200"), Ok(Some(200)));
        for outside in ["0", "201"] {
            assert_eq!(limit(&format!("limit={outside}")), Err("out_of_range".into()));
        }
        for wrong in ["", "ten", "-1", "1.5", "99999999999999999999999"] {
            assert_eq!(limit(&format!("limit={wrong}")), Err("wrong_type".into()));
        }
        assert_eq!(limit("limit=1&limit=2"), Err("repeated".into()));
    }
}
