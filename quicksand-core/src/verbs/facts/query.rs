//! What is asked of a guest, several things at once.

use std::{fmt, marker::PhantomData};

use quicksand_protocol::facts::{Answer, Question};

use super::{file::File, package::Package, port::Port, service::Service, shown, user::User};
use crate::error::{Result, facts::FactsError};

/// A question and its answer.
pub(crate) type Asked = (Question, Answer);

/// A question to a guest, of which [`Sandbox::facts`](crate::Sandbox::facts) makes a fact.
#[must_use = "a query asks nothing by itself: give it to `Sandbox::facts(..)`"]
pub struct Query<T> {
    question: Result<Question, (&'static str, String, &'static str)>,
    /// Whether it is UDP's port that is asked about.
    udp: bool,
    fact: PhantomData<fn() -> T>,
}

impl<T> Query<T> {
    pub(crate) fn of(question: Question) -> Query<T> {
        Query { question: Ok(question), udp: false, fact: PhantomData }
    }

    /// The same about UDP.
    pub(crate) fn of_udp(self) -> Query<T> {
        Query { udp: true, ..self }
    }

    /// One about something that can't be.
    pub(crate) fn refused(what: &'static str, name: String, why: &'static str) -> Query<T> {
        Query { question: Err((what, name, why)), udp: false, fact: PhantomData }
    }
}

impl<T> Clone for Query<T> {
    fn clone(&self) -> Query<T> {
        Query { question: self.question.clone(), udp: self.udp, fact: PhantomData }
    }
}

impl<T> fmt::Debug for Query<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Query").field(&self.question).finish()
    }
}

/// A fact, which is made of an answer.
pub(crate) trait Fact: Sized {
    /// `None` where the guest answered another question.
    fn read(question: &Question, answer: Answer, udp: bool) -> Option<Self>;
}

/// Questions to a guest: a [`Query`], or tuples, arrays and vectors of such.
pub trait Queries {
    /// The facts that they become, of the same form.
    type Facts;

    #[doc(hidden)]
    fn ask(&self, questions: &mut Vec<Question>) -> Result<()>;

    #[doc(hidden)]
    fn read(self, answers: &mut std::vec::IntoIter<Asked>) -> Result<Self::Facts>;
}

impl<T: Fact> Queries for Query<T> {
    type Facts = T;

    fn ask(&self, questions: &mut Vec<Question>) -> Result<()> {
        match &self.question {
            Ok(question) => questions.push(question.clone()),
            Err((what, name, why)) => return Err(FactsError::BadName { what, name: name.clone(), why }.into()),
        }
        Ok(())
    }

    fn read(self, answers: &mut std::vec::IntoIter<Asked>) -> Result<T> {
        let unexpected = |what: &str| FactsError::Unexpected(what.to_owned());
        let (question, answer) = answers.next().ok_or_else(|| unexpected("too little"))?;
        if let Answer::Failed(said) = &answer {
            return Err(FactsError::Failed { what: named(&question), said: shown(said) }.into());
        }
        Ok(T::read(&question, answer, self.udp).ok_or_else(|| unexpected("another question"))?)
    }
}

fn named(question: &Question) -> String {
    match question {
        Question::Package { name } => format!("the package {name}"),
        Question::Service { name } => format!("the service {name}"),
        Question::File { path } => String::from_utf8_lossy(path).into_owned(),
        Question::User { name } => format!("the user {name}"),
        Question::Port { port } => format!("port {port}"),
    }
}

impl<Q: Queries> Queries for Vec<Q> {
    type Facts = Vec<Q::Facts>;

    fn ask(&self, questions: &mut Vec<Question>) -> Result<()> {
        self.iter().try_for_each(|query| query.ask(questions))
    }

    fn read(self, answers: &mut std::vec::IntoIter<Asked>) -> Result<Vec<Q::Facts>> {
        self.into_iter().map(|query| query.read(answers)).collect()
    }
}

impl<Q: Queries, const N: usize> Queries for [Q; N] {
    type Facts = [Q::Facts; N];

    fn ask(&self, questions: &mut Vec<Question>) -> Result<()> {
        self.iter().try_for_each(|query| query.ask(questions))
    }

    fn read(self, answers: &mut std::vec::IntoIter<Asked>) -> Result<[Q::Facts; N]> {
        let facts = self.into_iter().map(|query| query.read(answers)).collect::<Result<Vec<_>>>()?;
        Ok(facts.try_into().unwrap_or_else(|_| unreachable!("each query made one fact")))
    }
}

macro_rules! tuples {
    ($($name:ident)*) => {
        impl<$($name: Queries),*> Queries for ($($name,)*) {
            type Facts = ($($name::Facts,)*);

            #[allow(non_snake_case)]
            fn ask(&self, questions: &mut Vec<Question>) -> Result<()> {
                let ($($name,)*) = self;
                $($name.ask(questions)?;)*
                Ok(())
            }

            #[allow(non_snake_case)]
            fn read(self, answers: &mut std::vec::IntoIter<Asked>) -> Result<Self::Facts> {
                let ($($name,)*) = self;
                Ok(($($name.read(answers)?,)*))
            }
        }
    };
}
tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);

impl Fact for Package {
    fn read(question: &Question, answer: Answer, _: bool) -> Option<Package> {
        match (question, answer) {
            (Question::Package { name }, Answer::Package(answer)) => Some(Package::new(name, answer)),
            _ => None,
        }
    }
}

impl Fact for Service {
    fn read(question: &Question, answer: Answer, _: bool) -> Option<Service> {
        match (question, answer) {
            (Question::Service { name }, Answer::Service(answer)) => Some(Service::new(name, answer)),
            _ => None,
        }
    }
}

impl Fact for File {
    fn read(question: &Question, answer: Answer, _: bool) -> Option<File> {
        match (question, answer) {
            (Question::File { path }, Answer::File(answer)) => Some(File::new(path, answer)),
            _ => None,
        }
    }
}

impl Fact for User {
    fn read(question: &Question, answer: Answer, _: bool) -> Option<User> {
        match (question, answer) {
            (Question::User { name }, Answer::User(answer)) => Some(User::new(name, answer)),
            _ => None,
        }
    }
}

impl Fact for Port {
    fn read(question: &Question, answer: Answer, udp: bool) -> Option<Port> {
        match (question, answer) {
            (Question::Port { port }, Answer::Port(answer)) => Some(Port::new(*port, udp, answer)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use quicksand_protocol::facts as protocol;

    use super::*;
    use crate::{error::Error, verbs::facts};

    #[test]
    fn answers_go_to_their_questions() {
        let queries = (facts::package("git"), [facts::port(1), facts::udp_port(2)], vec![facts::user("a")]);
        let mut questions = Vec::new();
        queries.ask(&mut questions).unwrap();
        assert_eq!(questions.len(), 4);
        let answers = [
            Answer::Package(protocol::Package::default()),
            Answer::Port(protocol::Port::default()),
            Answer::Port(protocol::Port::default()),
            Answer::User(protocol::User::default()),
        ];
        let asked: Vec<_> = questions.into_iter().zip(answers).collect();
        let (git, [tcp, udp], users) = queries.clone().read(&mut asked.clone().into_iter()).unwrap();
        assert_eq!((&*git.name, tcp.number, udp.number, &*users[0].name), ("git", 1, 2, "a"));
        // A guest that mixes them up is found out.
        let mut mixed = asked;
        mixed[0].1 = Answer::User(protocol::User::default());
        let error = queries.read(&mut mixed.into_iter()).unwrap_err();
        assert!(matches!(error, Error::Facts(FactsError::Unexpected(_))), "{error}");
    }

    #[test]
    fn names_that_would_be_something_else_are_refused() {
        let ask = |query: &dyn Fn(&mut Vec<Question>) -> Result<()>| query(&mut Vec::new()).is_err();
        for name in ["", "a b", "*", "a\n", "-x", &"x".repeat(300)] {
            assert!(ask(&|questions| facts::package(name).ask(questions)), "{name:?}");
            assert!(ask(&|questions| facts::service(name).ask(questions)), "{name:?}");
        }
        assert!(ask(&|questions| facts::service("../x").ask(questions)));
        assert!(ask(&|questions| facts::user("a:b").ask(questions)));
        assert!(ask(&|questions| facts::file("etc/x").ask(questions)));
        assert!(!ask(&|questions| facts::package("libstdc++6:i386").ask(questions)));
        assert!(!ask(&|questions| facts::service("getty@tty1.service").ask(questions)));
    }
}
