//! The nodes that can be spoken to, which may change while a run goes on.

use std::sync::{Arc, PoisonError, RwLock};

use sotto_client::Rest;

use crate::HarnessError;
use crate::dice::Dice;

/// One node.
pub struct Target {
    /// Its address.
    pub url: String,
    /// A client without a token; those of all devices share its connections.
    pub rest: Rest,
}

/// All nodes.
pub struct Targets(RwLock<Arc<Vec<Arc<Target>>>>);

impl Targets {
    /// Nodes at these addresses.
    ///
    /// # Errors
    /// [`HarnessError::Address`] for one that is none, [`HarnessError::Plan`] when there is none at all.
    pub fn new(urls: &[String]) -> Result<Self, HarnessError> {
        let targets = Self(RwLock::new(Arc::default()));
        targets.set(urls)?;
        Ok(targets)
    }

    /// Takes other nodes; those that stay keep their connections.
    ///
    /// # Errors
    /// As [`Targets::new`]; nothing has changed then.
    pub fn set(&self, urls: &[String]) -> Result<(), HarnessError> {
        if urls.is_empty() {
            return Err(HarnessError::Plan("at least one address is needed".to_owned()));
        }
        let present = self.all();
        let mut all: Vec<Arc<Target>> = Vec::new();
        for url in urls {
            let url = url.trim_end_matches('/').to_owned();
            if all.iter().any(|target| target.url == url) {
                continue;
            }
            if let Some(target) = present.iter().find(|target| target.url == url) {
                all.push(Arc::clone(target));
                continue;
            }
            let rest = Rest::new(&url)
                .map_err(|error| HarnessError::Address { url: url.clone(), reason: error.to_string() })?;
            all.push(Arc::new(Target { url, rest }));
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(all);
        Ok(())
    }

    /// Those of now.
    pub fn all(&self) -> Arc<Vec<Arc<Target>>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// One of them by chance, another one than that which has just failed, where there is one.
    pub fn pick(&self, dice: &mut Dice, but: Option<&str>) -> Option<Arc<Target>> {
        let all = self.all();
        let others: Vec<_> = all.iter().filter(|target| Some(target.url.as_str()) != but).collect();
        dice.pick(&others).map(|target| Arc::clone(target)).or_else(|| all.first().cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_change_and_failed_ones_are_avoided() {
        let urls = ["http://127.0.0.1:1/".to_owned(), "http://127.0.0.1:2".to_owned(), "http://127.0.0.1:1".to_owned()];
        let targets = Targets::new(&urls).unwrap();
        assert_eq!(targets.all().len(), 2);
        let mut dice = Dice::new(3);
        for _ in 0..20 {
            assert_eq!(targets.pick(&mut dice, Some("http://127.0.0.1:1")).unwrap().url, "http://127.0.0.1:2");
        }
        assert!(targets.set(&[]).is_err() && targets.set(&["ftp://x".to_owned()]).is_err());
        assert_eq!(targets.all().len(), 2);
        targets.set(&["http://127.0.0.1:1".to_owned()]).unwrap();
        assert_eq!(targets.pick(&mut dice, Some("http://127.0.0.1:1")).unwrap().url, "http://127.0.0.1:1");
    }
}
