/** Everybody may follow the orders of the playground. */
export default () => true
