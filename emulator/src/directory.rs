//! Test data: the app, the companies, their locations, and where the app is installed.

use crate::options::Options;
use crate::random::Seeded;
use std::collections::HashMap;

/// The marketplace app that the emulator serves.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) id: String,
    pub(crate) version_id: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    pub(crate) redirect_uris: Vec<String>,
    pub(crate) allow_loopback_redirects: bool,
    pub(crate) require_version_id: bool,
    pub(crate) scopes: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Company {
    pub(crate) id: String,
    pub(crate) name: String,
    /// The user who installs the app.
    pub(crate) user_id: String,
    pub(crate) install_to_future_locations: bool,
    /// When the app was installed on the company; `None` if it is not.
    pub(crate) installed_at_ms: Option<i64>,
}

#[derive(Debug)]
pub(crate) struct Location {
    pub(crate) id: String,
    pub(crate) company_id: String,
    pub(crate) name: String,
    pub(crate) address: String,
    /// False while the location's subscription is paused.
    pub(crate) active: bool,
    pub(crate) plan_id: String,
    pub(crate) on_trial: bool,
    /// When the app was installed on the location; `None` if it is not.
    pub(crate) installed_at_ms: Option<i64>,
}

#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) app: App,
    pub(crate) companies: Vec<Company>,
    pub(crate) locations: Vec<Location>,
    /// Index of each ID in `locations`, which may have a million entries.
    location_index: HashMap<String, usize>,
    /// Indexes of each company's locations.
    by_company: HashMap<String, Vec<usize>>,
    /// The generator for the IDs of new locations.
    seeded: Seeded,
    plans: [String; 2],
}

impl Directory {
    pub(crate) fn new(options: &Options) -> Self {
        let mut seeded = Seeded::new(options.seed);
        let app = App::new(options, &mut seeded);
        let plans = [seeded.object_id(), seeded.object_id()];
        let mut companies = Vec::with_capacity(options.companies);
        let mut locations = Vec::with_capacity(options.companies * options.locations);
        for number in 1..=options.companies {
            let company = Company {
                id: seeded.resource_id(),
                name: format!("Agency {number}"),
                user_id: seeded.resource_id(),
                install_to_future_locations: true,
                installed_at_ms: None,
            };
            for number in 1..=options.locations {
                locations.push(Location::new(number, &company.id, &plans, &mut seeded));
            }
            companies.push(company);
        }
        let location_index = locations
            .iter()
            .enumerate()
            .map(|(index, location)| (location.id.clone(), index))
            .collect();
        let mut by_company: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, location) in locations.iter().enumerate() {
            by_company.entry(location.company_id.clone()).or_default().push(index);
        }
        Self { app, companies, locations, location_index, by_company, seeded, plans }
    }

    pub(crate) fn company(&self, id: &str) -> Option<&Company> {
        self.companies.iter().find(|company| company.id == id)
    }

    pub(crate) fn company_mut(&mut self, id: &str) -> Option<&mut Company> {
        self.companies.iter_mut().find(|company| company.id == id)
    }

    /// Adds a location to a company.
    pub(crate) fn add_location(&mut self, company_id: &str) -> String {
        let number = self.locations_of(company_id).count() + 1;
        let location = Location::new(number, company_id, &self.plans, &mut self.seeded);
        let (id, index) = (location.id.clone(), self.locations.len());
        self.location_index.insert(id.clone(), index);
        self.by_company.entry(company_id.to_owned()).or_default().push(index);
        self.locations.push(location);
        id
    }

    /// Moves a location to another company. False if the location does not exist.
    pub(crate) fn move_location(&mut self, id: &str, company_id: &str) -> bool {
        let Some(&index) = self.location_index.get(id) else {
            return false;
        };
        let from = &mut self.locations[index].company_id;
        if let Some(indexes) = self.by_company.get_mut(from) {
            indexes.retain(|one| *one != index);
        }
        company_id.clone_into(from);
        let indexes = self.by_company.entry(company_id.to_owned()).or_default();
        let place = indexes.partition_point(|one| *one < index);
        indexes.insert(place, index);
        true
    }

    pub(crate) fn location(&self, id: &str) -> Option<&Location> {
        self.location_index.get(id).map(|&index| &self.locations[index])
    }

    pub(crate) fn location_mut(&mut self, id: &str) -> Option<&mut Location> {
        self.location_index.get(id).map(|&index| &mut self.locations[index])
    }

    pub(crate) fn locations_of(&self, company_id: &str) -> impl Iterator<Item = &Location> {
        let indexes = self.by_company.get(company_id).map(Vec::as_slice).unwrap_or_default();
        indexes.iter().map(|&index| &self.locations[index])
    }
}

impl App {
    fn new(options: &Options, seeded: &mut Seeded) -> Self {
        let id = seeded.object_id();
        let suffix = seeded.text("abcdefghijklmnopqrstuvwxyz0123456789", 8);
        let mut secret_part = |length| seeded.text(crate::random::HEX, length);
        let client_secret = [8, 4, 4, 4, 12].map(&mut secret_part).join("-");
        Self {
            client_id: format!("{id}-{suffix}"),
            id,
            version_id: seeded.object_id(),
            client_secret,
            redirect_uris: options.redirect_uris.clone(),
            allow_loopback_redirects: options.allow_loopback_redirects,
            require_version_id: options.require_version_id,
            scopes: options.scopes.clone(),
        }
    }
}

impl Location {
    fn new(number: usize, company_id: &str, plans: &[String; 2], seeded: &mut Seeded) -> Self {
        // Repeated names, so that searches find several locations; some need HTML escaping.
        const OWNERS: [&str; 5] = ["Harbor", "Maple Street", "Smith & Sons", "O'Neil's", "Sunrise"];
        const TRADES: [&str; 4] = ["Dental", "Fitness", "Plumbing", "Law"];
        Self {
            id: seeded.resource_id(),
            company_id: company_id.to_owned(),
            name: format!(
                "{} {} {number}",
                OWNERS[number % OWNERS.len()],
                TRADES[number % TRADES.len()]
            ),
            address: format!("{number} Main St, Springfield, IL 62701, USA"),
            active: true,
            plan_id: plans[number % plans.len()].clone(),
            on_trial: number.is_multiple_of(5),
            installed_at_ms: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_look_realistic_and_never_change() {
        let directory = Directory::new(&Options::default());
        let again = Directory::new(&Options::default());
        let (app_id, suffix) = directory.app.client_id.split_once('-').unwrap();
        assert_eq!((app_id.len(), suffix.len()), (24, 8));
        assert_eq!(app_id, directory.app.id);
        assert_eq!(directory.app.client_id, again.app.client_id);
        assert_eq!(directory.locations.len(), 25);
        for (location, same) in directory.locations.iter().zip(&again.locations) {
            assert_eq!(location.id, same.id);
            assert_eq!(location.id.len(), 20);
            assert_eq!(directory.location(&location.id).unwrap().name, location.name);
        }
    }
}
